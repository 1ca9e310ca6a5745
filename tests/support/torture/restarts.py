"""Restarts of Redis and Postgres under senders, and what may fail meanwhile."""

from __future__ import annotations

import statistics
import time
from typing import Literal

from tests.support.processes.stack import wait_for
from tests.support.torture import chaos
from tests.support.torture.ledger import FULL_LOAD, Ledger, Load
from tests.support.torture.rig import Rig
from tests.support.torture.senders import Failure

NOTICE_SECONDS = 0.5
"""In which a relay mostly notices that Redis is back. It tries every 20 ms; a busy machine adds some."""


def restart_under_load(rig: Rig, name: Literal["postgres", "valkey"], *, times: int, load: Load = FULL_LOAD) -> None:
    """Restart a server so many times. Webhooks may fail only while Redis is down and until the relay says that it takes
    them again, none while Postgres is down, and the sweeper goes on as the same process."""
    server = rig.valkey if name == "valkey" else rig.postgres
    [sweeper] = wait_for(lambda: rig.stack.children("sweeper"), what="sweeper running")
    down: list[tuple[float, float]] = []
    noticed: list[float] = []
    ledger = Ledger(rig.stack, load=load)
    with ledger.sending():
        for number in range(times):
            chaos.wait_at_random()
            ledger.hurry()
            began_at = time.monotonic()
            server.pause()
            chaos.wait_at_random(2)
            server.restart()
            back_at = time.monotonic()
            wait_for(lambda: _takes_webhooks(rig), what="webhooks taken")
            down.append((began_at, time.monotonic()))
            noticed.append(time.monotonic() - back_at)
            ledger.wait_for_progress()
            print(
                f"{name} {number + 1}/{times}: {ledger.confirmed} confirmed, {len(ledger.failed)} attempts failed;"
                f" webhooks are taken again after {noticed[-1]:.3f} s"
            )
    may_fail = down if name == "valkey" else []
    unexpected = [failure for failure in ledger.failed if not _overlaps(failure, may_fail)]
    assert not unexpected, (unexpected, down)
    assert statistics.median_low(noticed) < NOTICE_SECONDS, noticed
    assert [process.pid for process in rig.stack.children("sweeper")] == [sweeper.pid]
    assert sweeper.is_running()
    ledger.check(pending=True)


def _takes_webhooks(rig: Rig) -> bool:
    return bool(rig.stack.client.get("/readyz").json()["webhooks"]["taken"])


def _overlaps(failure: Failure, times: list[tuple[float, float]]) -> bool:
    return any(failure.began_at <= ended_at and began_at <= failure.ended_at for began_at, ended_at in times)

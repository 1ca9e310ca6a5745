"""Restarts of Redis and Postgres under senders, and what may fail meanwhile."""

from __future__ import annotations

import time
from typing import Literal

from tests.support.processes.stack import wait_for
from tests.support.torture import chaos
from tests.support.torture.ledger import Ledger
from tests.support.torture.rig import Rig
from tests.support.torture.senders import Failure

SETTLING_SECONDS = 5.0
"""Time for a relay to notice that Redis is back, which it does within a second or two on a busy machine."""


def restart_under_load(rig: Rig, name: Literal["postgres", "valkey"], *, times: int) -> None:
    """Restart a server so many times. Webhooks may fail only while Redis is down, none while Postgres is, and the
    sweeper goes on as the same process."""
    server = rig.valkey if name == "valkey" else rig.postgres
    [sweeper] = wait_for(lambda: rig.stack.children("sweeper"), what="sweeper running")
    down: list[tuple[float, float]] = []
    ledger = Ledger(rig.stack)
    with ledger.sending():
        for number in range(times):
            chaos.wait_at_random()
            began_at = time.monotonic()
            server.pause()
            chaos.wait_at_random(2)
            server.restart()
            down.append((began_at, time.monotonic()))
            ledger.wait_for_progress()
            print(f"{name} {number + 1}/{times}: {ledger.confirmed} confirmed, {len(ledger.failed)} attempts failed")
    may_fail = down if name == "valkey" else []
    unexpected = [failure for failure in ledger.failed if not _overlaps(failure, may_fail)]
    assert not unexpected, (unexpected, down)
    assert [process.pid for process in rig.stack.children("sweeper")] == [sweeper.pid]
    assert sweeper.is_running()
    ledger.check(pending=True)


def _overlaps(failure: Failure, times: list[tuple[float, float]]) -> bool:
    return any(
        failure.began_at <= ended_at + SETTLING_SECONDS and began_at <= failure.ended_at for began_at, ended_at in times
    )

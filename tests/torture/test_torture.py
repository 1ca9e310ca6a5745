"""Faults under concurrent senders: servers and processes are killed, suspended and robbed of keys, ROUNDS times each,
and the ledger holds: confirmed webhooks take effect once and in order, and nothing is left behind.

ROUNDS is 3 if not set; 20 is the full suite.
"""

from __future__ import annotations

import os
import time
from functools import partial

import pytest

from tests.support.torture import chaos
from tests.support.torture.ledger import Ledger
from tests.support.torture.rig import Rig

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3_600)]

ROUNDS = int(os.environ.get("ROUNDS", "3"))
STOPPED_SECONDS = 30.0

TROUBLES: dict[str, chaos.Trouble] = {
    "worker": chaos.kill_worker,
    **{failpoint: partial(chaos.kill_at, failpoint) for failpoint in chaos.FAILPOINTS},
    "workers and sweeper": chaos.kill_sweeper,
    "supervisor": chaos.kill_supervisor,
    "api": chaos.kill_api,
    "valkey": chaos.kill_valkey,
    "postgres": chaos.kill_postgres,
    "postgres backend": chaos.kill_backend,
    "stopped worker": partial(chaos.stop_worker, STOPPED_SECONDS),
    "stopped valkey": partial(chaos.stop_valkey, 8.0),
    "stopped postgres": partial(chaos.stop_postgres, 15.0),
    "rq keys": chaos.delete_rq_keys,
    "wake marks": chaos.delete_wake_marks,
    "memory": chaos.fill_memory,
}


@pytest.mark.parametrize("name", TROUBLES)
def test_the_ledger_holds_through_trouble_with(name: str, rig: Rig) -> None:
    ledger = Ledger(rig.stack)
    with ledger.sending():
        for number in range(ROUNDS):
            chaos.wait_at_random()
            began_at = time.monotonic()
            TROUBLES[name](rig)
            ended_at = time.monotonic()
            ledger.wait_for_progress()
            print(
                f"{name} {number + 1}/{ROUNDS}: trouble for {ended_at - began_at:.1f} s,"
                f" well again after {time.monotonic() - ended_at:.1f} s, {ledger.confirmed} confirmed"
            )
    ledger.check()


def test_the_ledger_holds_through_several_troubles_at_once(rig: Rig) -> None:
    ledger = Ledger(rig.stack)
    names = [name for name in TROUBLES if not name.startswith("stopped")]
    with ledger.sending():
        for _ in range(ROUNDS):
            several = chaos.chance.sample(names, 3)
            print(f"{', '.join(several)}, {ledger.confirmed} confirmed")
            for name in several:
                chaos.wait_at_random()
                TROUBLES[name](rig)
            ledger.wait_for_progress()
    # Several faults in a row may take longer than a sender waits.
    ledger.check(pending=True)

"""A short run of the torture suite: each fault once, one after the other, under the same senders."""

from __future__ import annotations

from functools import partial

from tests.support.torture import chaos
from tests.support.torture.ledger import EVERYDAY_LOAD, Ledger
from tests.support.torture.rig import new_rig

TROUBLES: tuple[chaos.Trouble, ...] = (
    chaos.kill_worker,
    chaos.delete_rq_keys,
    chaos.kill_api,
    chaos.kill_valkey,
    chaos.delete_wake_marks,
    chaos.kill_backend,
    partial(chaos.stop_worker, 1.5),
    chaos.fill_memory,
    chaos.kill_postgres,
    chaos.kill_supervisor,
)


def test_confirmed_webhooks_take_effect_once_and_in_order_through_all_faults() -> None:
    with new_rig() as rig:
        ledger = Ledger(rig.stack, load=EVERYDAY_LOAD)
        with ledger.sending():
            for trouble in TROUBLES:
                ledger.hurry()
                trouble(rig)
                ledger.wait_for_progress()
        ledger.check()

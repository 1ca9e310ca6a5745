"""The ledger of the torture suite accepts a second refusal of a webhook sent twice, and reports everything else."""

from __future__ import annotations

import pytest

from tests.support.torture.ledger import one_refusal_each
from tests.support.torture.senders import Sent, Session, Step

REFUSED = Sent(delivery_id="s-1", step=Step(command="store_memory", data={}, status="rejected"), tries=2)
APPLIED = Sent(delivery_id="s-2", step=Step(command="store_memory", data={}), tries=2)


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("s-1 rejected, s-1 rejected", 1),
        ("s-1 rejected, s-1 rejected, s-1 rejected", 3),
        ("s-1 rejected, s-2 applied, s-1 rejected", 3),
        ("s-1 rejected, s-1 applied", 2),
        ("s-1 applied, s-1 applied", 2),
        ("s-2 applied, s-2 applied", 2),
        ("s-2 rejected, s-2 rejected", 2),
    ],
)
def test_a_refusal_may_occur_as_often_as_it_was_sent_and_in_one_place(told: str, kept: int) -> None:
    session = Session(session_id="s", sent=[REFUSED, APPLIED])
    events = [dict(zip(("delivery_id", "status"), event.split(), strict=True)) for event in told.split(", ")]
    assert len(one_refusal_each(session, events)) == kept

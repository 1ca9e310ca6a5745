"""Lost commits: Postgres commits and the worker gets no acknowledgement, or is disconnected just before."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.support.processes.stack import wait_for
from tests.support.torture.chaos import wait_at_random
from tests.support.torture.commit_proxy import CommitProxy, Moment
from tests.support.torture.ledger import Ledger
from tests.support.torture.rig import Rig

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3_600)]

ROUNDS = int(os.environ.get("ROUNDS", "3"))
MOMENTS: tuple[Moment, ...] = ("before", "sent", "answered")


def test_the_ledger_holds_when_commits_and_their_acknowledgements_are_lost(rig: Rig) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="session-relay-proxy-") as folder,
        CommitProxy(Path(folder), server_url=rig.postgres.url) as proxy,
    ):
        rig.stack.stop("worker")
        rig.stack.environment["DATABASE_URL"] = proxy.url
        rig.stack.start("worker")
        ledger = Ledger(rig.stack)
        with ledger.sending():
            for number in range(ROUNDS * len(MOMENTS)):
                wait_at_random()
                proxy.lose(MOMENTS[number % len(MOMENTS)])
                wait_for(lambda: proxy.lost > number, what="connection cut")  # noqa: B023 - The wait ends before the next round.
                ledger.wait_for_progress()
        ledger.check()
        assert "waits. Postgres cannot be used: " in rig.stack.log("worker")
        rig.stack.stop("worker")

"""The ledger: runs senders, and compares their responses with the stored data afterwards."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from typing import NamedTuple, cast

import httpx

from models.queue.job_queue import open_queue
from tests.support.processes.stack import Payload, Stack, new_id, wait_for
from tests.support.torture.senders import Failure, Sender, Session

SESSIONS_EACH = 3
"""Enough that most shards have work, and each sender uses several."""
RECOVERY_SECONDS = 90.0
"""The timeout from the end of a fault until webhooks are confirmed and applied again. Most take a few seconds."""


class Load(NamedTuple):
    """The number of senders, the pause of each after a webhook, and how many confirmed ones of all show recovery."""

    senders: int
    pause_seconds: float = 0.0
    progress: int = 60


FULL_LOAD = Load(senders=8)
EVERYDAY_LOAD = Load(senders=4, pause_seconds=0.12, progress=20)
"""Some thirty webhooks a second. So few come in batches of one, which cost some ten milliseconds each."""
HURRY_SECONDS = 0.2
"""In which senders without pauses have many webhooks on their way."""


class Ledger:
    """The commands of concurrent senders, and their responses."""

    def __init__(
        self,
        stack: Stack,
        *,
        load: Load = FULL_LOAD,
        new_client: Callable[[], httpx.Client] | None = None,
    ) -> None:
        """`new_client` creates each sender's client, by default one of the stack."""
        self._stack = stack
        self._load = load
        self._hurried_until = 0.0
        new_client = new_client or stack.new_client
        self._senders = [
            Sender(new_client(), [new_id("torture") for _ in range(SESSIONS_EACH)]) for _ in range(load.senders)
        ]
        self._work: list[Future[None]] = []

    @contextmanager
    def sending(self) -> Iterator[None]:
        """Run the senders within the block. Raises the errors that they found."""
        stop = threading.Event()
        with ThreadPoolExecutor(len(self._senders)) as pool:
            self._work = [pool.submit(sender.run, stop, self._pause_seconds) for sender in self._senders]
            try:
                self.wait_for_progress()
                yield
            finally:
                stop.set()
        for work in self._work:
            work.result()

    def _pause_seconds(self) -> float:
        return 0.0 if time.monotonic() < self._hurried_until else self._load.pause_seconds

    def hurry(self) -> None:
        """Let the senders send without pauses for a moment, so that a fault that begins now meets many webhooks on
        their way."""
        self._hurried_until = time.monotonic() + self._load.pause_seconds + HURRY_SECONDS
        time.sleep(self._load.pause_seconds)  # Until the last pause is over.

    @property
    def confirmed(self) -> int:
        """Return the webhooks that got a 2xx, or the response that they waited for."""
        return sum(sender.confirmed for sender in self._senders)

    @property
    def failed(self) -> list[Failure]:
        """Return the attempts without a response, or with a 503."""
        return [failed for sender in self._senders for failed in sender.failed]

    def wait_for_progress(self, seconds: float = RECOVERY_SECONDS) -> None:
        """Wait until each sender had webhooks confirmed that it began after this moment."""
        before = [sender.confirmed for sender in self._senders]
        wanted = self._load.progress // len(self._senders)

        def progressed() -> bool:
            pairs = zip(self._senders, before, strict=True)
            return any(work.done() for work in self._work) or all(now.confirmed >= had + wanted for now, had in pairs)

        wait_for(progressed, seconds=seconds, what="confirmed webhooks of each sender")
        for work in self._work:
            if work.done():
                work.result()

    def check(self, *, pending: bool = False) -> None:
        """Compare, once the senders have stopped. `pending` allows waits beyond the senders' timeouts."""
        self._stack.wait_until_drained(seconds=RECOVERY_SECONDS)
        for sender in self._senders:
            for session in sender.sessions:
                self._check_session(session)
            assert pending or not sender.pending
        self._check_redis()
        for name in ("api", "worker"):
            log = self._stack.log(name)
            assert "Bug:" not in log
            assert "broke off" not in log
            assert "dead letter" not in log

    def _check_session(self, session: Session) -> None:
        confirmed = [sent for sent in session.sent if sent.confirmed]
        unknown = {sent.delivery_id for sent in session.sent if not sent.confirmed}
        events = self._pages(f"/v1/sessions/{session.session_id}/events", "after")
        # Unconfirmed webhooks may arrive at any time, also between two refusals of one.
        came_late = [event for event in events if event["delivery_id"] in unknown]
        certain = [event for event in events if event["delivery_id"] not in unknown]
        events = one_refusal_each(session, certain) + came_late
        ids = [event["delivery_id"] for event in events]
        twice = {delivery_id for delivery_id, count in Counter(ids).items() if count > 1}
        assert not twice, f"A webhook took effect twice. {self._describe(session, twice, events)}"
        expected = [
            (sent.delivery_id, sent.step.command, sent.step.status)
            for sent in confirmed
            if sent.step.command != "retrieve_memory"
        ]
        found = [(event["delivery_id"], event["event"], event["status"]) for event in events]
        assert [event for event in found if event[0] not in unknown] == expected
        decided = self._pages("/v1/deliveries", "cursor", session_id=session.session_id)
        statuses = {item["delivery_id"]: item["status"] for item in decided}
        assert len(statuses) == len(decided)
        # A read that had no time at its place in the order was repeated outside of it.
        reads = {sent.delivery_id for sent in confirmed if sent.step.command == "retrieve_memory"}
        assert {statuses.get(name) for name in reads} <= {"applied", "rejected", None}
        wanted = {sent.delivery_id: sent.step.status for sent in confirmed if sent.delivery_id not in reads}
        # Unconfirmed webhooks may have arrived during a pause.
        known = {name: status for name, status in statuses.items() if name not in unknown | reads}
        differing = {name for name, _ in known.items() ^ wanted.items()}
        assert not differing, f"Deliveries have other statuses. {self._describe(session, differing, events)}"
        assert set(statuses) & unknown == unknown & set(ids)
        self._check_state(session, came={event[0] for event in found if event[0] in unknown and event[2] == "applied"})

    def _describe(self, session: Session, delivery_ids: set[str], events: list[Payload]) -> str:
        """Return everything known about deliveries, and the events about them."""
        sent = [item for item in session.sent if item.delivery_id in delivery_ids]
        about = [event for event in events if event["delivery_id"] in delivery_ids]
        deliveries = [self._stack.client.get(f"/v1/deliveries/{delivery_id}").json() for delivery_id in delivery_ids]
        return f"Sent: {sent}. Events: {about}. Deliveries: {deliveries}."

    def _check_state(self, session: Session, *, came: set[str]) -> None:
        counted = [sent for sent in session.sent if sent.step.data.get("key") == "count" and sent.step.repeats]
        last = max((sent.step.revision or 0 for sent in counted if sent.confirmed), default=0)
        if last:
            memory = self._stack.send("retrieve_memory", session.session_id, key="count")["data"]["memory"]
            assert (memory["content"], memory["revision"]) == (last, last)
        shown = self._stack.client.get(f"/v1/sessions/{session.session_id}").json()
        maybe = [
            sent for sent in session.sent if not sent.step.repeats and (sent.confirmed or sent.delivery_id in came)
        ]
        assert (shown["stats"]["memories"], shown["status"]) == (len(maybe) + bool(last), _state_of(session))

    def _check_redis(self) -> None:
        redis = self._stack.redis
        wait_for(lambda: not list(redis.scan_iter("sr:wake:*")), what="no drain-pending keys left")
        wait_for(lambda: not redis.exists("sr:backlog", "sr:backlog:bytes"), what="no backlog left")
        # Killed drains are listed as failed until the sweeper's next turn.
        wait_for(lambda: open_queue(redis).failed_job_registry.count == 0, seconds=90, what="no abandoned drains left")
        assert not redis.exists("sr:unreadable")
        with redis.pipeline(transaction=False) as pipeline:
            keys = list(redis.scan_iter("sr:seen:*", count=1_000))
            for key in keys:
                pipeline.ttl(key)
            staying = [key for key, seconds in zip(keys, pipeline.execute(), strict=True) if seconds == -1]
        assert not staying, "The dedup keys of applied entries do not expire."

    def _pages(self, path: str, cursor: str, **query: str) -> list[Payload]:
        items: list[Payload] = []
        query |= {"limit": "500"}
        while True:
            answer = self._stack.client.get(path, params=query)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            items += page["items"]
            if not page["items"] or page["next_cursor"] is None:
                return items
            query[cursor] = cast(str, page["next_cursor"])


def one_refusal_each(session: Session, events: list[Payload]) -> list[Payload]:
    """Drop repeated refusals of a delivery because of a pause. Its sender got no response and sent it again, so it was
    evaluated again, with one event each. There can be no other event of its sender in between, and no more refusals
    than deliveries."""
    refused = {sent.delivery_id: sent.tries for sent in session.sent if sent.step.status == "rejected"}
    kept: list[Payload] = []
    for (delivery_id, status), same in groupby(events, key=lambda event: (event["delivery_id"], event["status"])):
        told = list(same)
        may_repeat = status == "rejected" and len(told) <= refused.get(delivery_id, 0)
        kept += told[:1] if may_repeat else told
    return kept


def _state_of(session: Session) -> str:
    states = {"pause_session": "paused", "resume_session": "active", "create_session": "active"}
    return next(
        states[sent.step.command] for sent in reversed(session.sent) if sent.confirmed and sent.step.command in states
    )

"""Senders of the torture suite: each plays a fixed script on sessions of its own, and repeats unconfirmed webhooks
under the same delivery id. The ledger judges their records."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import httpx

from tests.support.processes.stack import Payload, envelope

RETRY_SECONDS = 0.05
"""The pause between attempts. Without it, eight refused senders would use up the processors."""
PATIENCE_SECONDS = 120.0
"""The timeout for confirming a webhook, through any faults."""
WAIT_SECONDS = 30
"""The wait of a sender for its response, which is `pending` after that."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A command of the script, and its expected result."""

    command: str
    data: Payload
    status: str = "applied"
    waits: bool = False
    revision: int | None = None
    """The expected revision of the memory in the response to a waiting sender."""
    repeats: bool = True
    """Whether to send it again until it is confirmed. Otherwise its result stays unknown if the first attempt fails."""


@dataclass(kw_only=True)
class Sent:
    """A step and its result: `confirmed` by a 2xx, or by its response if it waited, or unknown."""

    delivery_id: str
    step: Step
    tries: int = 0
    confirmed: bool = False


def script() -> Iterator[Step]:
    """Return a sender's commands for one session: a counter under one key, whose every revision depends on the previous
    ones, with pauses in which a memory is refused, and memories that are sent only once."""
    yield Step(command="create_session", data={"title": "Torture"})
    number = 0
    while True:
        for _ in range(12):
            number += 1
            data = {"key": "count", "content": number}
            yield Step(command="store_memory", data=data, waits=number % 4 == 0, revision=number)
            if number % 3 == 0:
                data = {"key": f"maybe-{number}", "content": number}
                yield Step(command="store_memory", data=data, repeats=False)
        yield Step(command="retrieve_memory", data={"key": "count"}, waits=True, revision=number)
        yield Step(command="pause_session", data={})
        refused = {"key": "refused", "content": number}
        yield Step(command="store_memory", data=refused, status="rejected", waits=number % 24 == 0)
        yield Step(command="resume_session", data={})


@dataclass(kw_only=True)
class Session:
    """One session and everything sent to it, in order."""

    session_id: str
    steps: Iterator[Step] = field(default_factory=script)
    sent: list[Sent] = field(default_factory=list)


class Failure(NamedTuple):
    """An attempt without a response, or with a 503; and when, by the monotonic clock."""

    began_at: float
    ended_at: float
    cause: str
    url: str = ""
    """The relay, if it gave no response."""


class Sender:
    """One sender with its sessions and a connection of its own."""

    def __init__(self, client: httpx.Client, session_ids: list[str]) -> None:
        self._client = client
        self.sessions = [Session(session_id=session_id) for session_id in session_ids]
        self.confirmed = 0
        self.pending: list[str] = []
        """Delivery ids with a `pending` response: they took longer than the sender waited."""
        self.failed: list[Failure] = []

    def run(self, stop: threading.Event, pause_seconds: Callable[[], float]) -> None:
        """Send until told to stop, with a pause after each webhook, then finish what was begun."""
        while not stop.is_set():
            for session in self.sessions:
                self._send(session, next(session.steps))
                stop.wait(pause_seconds())
        self._client.close()

    def _send(self, session: Session, step: Step) -> None:
        sent = Sent(delivery_id=f"{session.session_id}-{len(session.sent)}", step=step)
        session.sent.append(sent)
        limit_at = time.monotonic() + PATIENCE_SECONDS
        while not (answer := self._try(session, sent)):
            if not step.repeats:
                return
            assert time.monotonic() < limit_at, f"{sent.delivery_id} was not confirmed in {PATIENCE_SECONDS:g} s."
            time.sleep(RETRY_SECONDS)
        sent.confirmed = True
        self.confirmed += 1
        if answer.status_code == 202 and answer.json()["duplicate"] is False and not step.waits:
            return
        self._check(session, sent, answer)

    def _try(self, session: Session, sent: Sent) -> httpx.Response | None:
        """Return the response if it settles the webhook's result, or None while that is unknown."""
        sent.tries += 1
        began_at = time.monotonic()
        query = {"wait": str(WAIT_SECONDS)} if sent.step.waits else {}
        try:
            answer = self._client.post(
                "/v1/webhook",
                params=query,
                json=envelope(sent.step.command, session.session_id, **sent.step.data),
                headers={"Idempotency-Key": sent.delivery_id},
            )
        except httpx.TransportError as error:
            self._fail(sent, began_at, repr(error), url=str(error.request.url.join("/")).rstrip("/"))
            return None
        if answer.status_code == 503 or (answer.status_code == 429 and sent.step.command == "retrieve_memory"):
            assert answer.json()["error"]["retryable"] is True, answer.text
            assert int(answer.headers["Retry-After"]) > 0
            # On a busy machine the reads of one source may exceed their share, which is no failure.
            if answer.status_code == 503:
                self._fail(sent, began_at, f"{answer.status_code} {answer.text}")
            return None
        if answer.status_code == 202 and sent.step.waits:
            assert answer.json()["status"] == "pending", answer.text
            self.pending.append(sent.delivery_id)
            return None
        return answer

    def _fail(self, sent: Sent, began_at: float, cause: str, *, url: str = "") -> None:
        self.failed.append(Failure(began_at, time.monotonic(), f"{sent.delivery_id}: {cause}", url))

    def _check(self, session: Session, sent: Sent, answer: httpx.Response) -> None:
        body, step = answer.json(), sent.step
        assert (body["delivery_id"], body["session_id"]) == (sent.delivery_id, session.session_id), body
        if not step.waits:
            assert (answer.status_code, body["status"], body["duplicate"]) == (202, "accepted", True), body
        elif step.status == "rejected":
            assert (answer.status_code, body["error"]["code"]) == (409, "session_paused"), body
        else:
            assert (answer.status_code, body["status"]) == (200, "success"), body
            data = body["data"]
            assert data.get("revision", data.get("memory", {}).get("revision")) == step.revision, body

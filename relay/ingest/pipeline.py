"""The path of a webhook: read, authenticate, parse, authorize, admit, push, wait, answer.

Each step is in one place, and takes headers, a body or an entry instead of a request, so that any ASGI app can run it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.datastructures import Headers, QueryParams
from starlette.responses import Response
from starlette.types import Receive, Scope

from models.commands.definitions import EMPTY_OBJECT, GetTask, ReadCommand
from models.commands.payloads import Submission
from models.errors import TooManyRequests, Unavailable
from models.field_types import MAX_WAIT_SECONDS
from models.queue.inbox import Entry, Outcome, make_entry, outcome_key
from relay.auth.access_control import AccessControl, Authenticate, RequestState
from relay.auth.authentication import Caller, require_permission
from relay.delivery_ids import HEADER as IDEMPOTENCY_KEY
from relay.delivery_ids import choose_delivery_id
from relay.http.access_log import STATE_KEY, RequestLog
from relay.http.bodies import LARGE_BYTES, UnauthenticatedBytes, plain_body, read_body, without_mark
from relay.http.headers import IndexedHeaders
from relay.http.query_parameters import decode_parameters
from relay.http.responses import error_response
from relay.http.waiting import wait_any
from relay.ingest.pusher import Pushed, Pusher
from relay.ingest.receipts import is_incomplete, outcome_response, receipt_response
from relay.ingest.signed_bodies import IgnoredEvent
from relay.limits.concurrency import ConcurrencyLimiter
from relay.limits.load_shedding import LoadShedder
from relay.notifications.outcomes import OutcomeWaiters
from relay.notifications.tasks import LOOK_SECONDS, TaskNotifier, is_settled
from relay.process_metrics import ProcessMetrics

SYNC_WAIT_SECONDS = 30.0
"""For `sync: true`: within the usual timeouts of HTTP clients and proxies."""
LEAST_READ_SECONDS = 2.0
"""For the first read of a task that its sender waits for, even if it waits for less."""

Parsed = Submission | IgnoredEvent
Parse = Callable[[bytes, Caller], Parsed | Response]
"""Parses a body; a Response answers a request other than a webhook."""
ReadAgain = Callable[[Caller, Entry, ReadCommand], Awaitable[Outcome]]
"""Repeats a read, as a GET would. Raises Unavailable or TooManyRequests if that is impossible now."""


class WaitParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Query parameters of a POST."""

    wait: Annotated[float, Meta(ge=0, le=MAX_WAIT_SECONDS)] | None = None


NO_QUERY = QueryParams()


class Sender(msgspec.Struct):
    """The client's side of a request."""

    method: str
    headers: Headers
    query: QueryParams
    receive: Receive
    state: RequestState
    begun_at: float = msgspec.field(default_factory=time.perf_counter)
    """The begin of the request, moved on by the time for which its body was awaited."""

    @classmethod
    def of(cls, scope: Scope, receive: Receive, *, headers: Headers | None = None) -> Sender:
        """Returns the sender of a request."""
        query = QueryParams(scope["query_string"]) if scope["query_string"] else NO_QUERY
        headers = IndexedHeaders(scope["headers"]) if headers is None else headers
        return cls(scope["method"], headers, query, receive, scope.setdefault("state", {}))

    @property
    def log(self) -> RequestLog | None:
        """The request's line in the access log."""
        return self.state.get(STATE_KEY)

    @property
    def client(self) -> str:
        """The client's address, or an empty text."""
        return self.state.get("address") or ""


class Waits(msgspec.Struct, frozen=True):
    """The sender's wishes for waiting."""

    asked_seconds: float | None = None
    """From the query parameter."""
    default_seconds: float = 0.0


class Admitted(msgspec.Struct, frozen=True):
    """An entry to push, and the time for which its sender waits for the outcome."""

    entry: Entry
    wait_seconds: float
    read: ReadCommand | None = None
    """The command, if it is a read."""
    task: GetTask | None = None
    """A task that the sender waits for after the first read."""
    is_flat: bool = False


class Pipeline:
    """The steps of the path, in order."""

    def __init__(
        self,
        *,
        access: AccessControl,
        load: LoadShedder,
        pusher: Pusher,
        outcomes: OutcomeWaiters,
        tasks: TaskNotifier,
        metrics: ProcessMetrics,
        limiter: ConcurrencyLimiter,
        stopping: asyncio.Event,
        unproven: UnauthenticatedBytes,
        max_body_bytes: int,
        read_again: ReadAgain | None,
    ) -> None:
        self._access = access
        self._load = load
        self._pusher = pusher
        self._outcomes = outcomes
        self._tasks = tasks
        self._metrics = metrics
        self._limiter = limiter
        self._stopping = stopping
        self._max_body_bytes = max_body_bytes
        self._unproven = unproven
        self._read_again = read_again

    async def run(
        self,
        sender: Sender,
        authenticate: Authenticate,
        parse: Parse,
        *,
        default_wait_seconds: float = 0.0,
        takes_forms: bool = False,
        is_known: bool = False,
    ) -> Response:
        """Take a request with checked headers through all steps. `is_known` says that its sender is authenticated even
        if its body is signed."""
        self._load.check()
        wait = decode_parameters(sender.query, WaitParameters).wait if sender.query else None
        waits = Waits(wait, default_wait_seconds)
        reading_at = time.perf_counter()
        body = await read_body(
            sender.headers,
            sender.receive,
            limit=self._max_body_bytes,
            address=sender.state.get("address"),
            unproven=None if is_known else self._unproven,
            takes_forms=takes_forms,
        )
        sender.begun_at += time.perf_counter() - reading_at
        caller = await authenticate(body)
        if len(body) < LARGE_BYTES:
            parsed = parse(without_mark(body), caller)
        else:
            async with self._access.large_bodies.turn(body):
                parsed = parse(without_mark(body), caller)
        if isinstance(parsed, Response):
            return parsed
        return await self.submit(sender, caller, parsed, waits)

    async def submit(self, sender: Sender, caller: Caller, parsed: Parsed, waits: Waits) -> Response:
        """Take a caller's submission, from any interface, through the steps from authorize on. Raises Forbidden,
        Conflict, TooManyRequests, or Unavailable if nothing was stored."""
        self._load.check()
        if isinstance(parsed, Submission):
            require_permission(caller, parsed.command, parsed.session_id)
        admitted = self._admit(caller, parsed, waits, header=sender.headers.get(IDEMPOTENCY_KEY), client=sender.client)
        try:
            return await self.deliver(sender, caller, admitted)
        except Unavailable as error:
            return self._not_stored(admitted.entry, error, sender.log)

    def push_at_once(
        self, sender: Sender, body: bytes, parse: Parse, done: Callable[[Response | Exception], None]
    ) -> bool:
        """Take a whole body through the same steps without awaiting any, and later call `done` with the response, or
        what `submit` would raise. Returns False, having changed nothing, if a step has to be awaited or raises: then
        `run` takes the request, or raises the same."""
        try:
            caller = self._access.find_ready(sender.headers, len(body))
            self._load.check()
            content = plain_body(sender.headers, body, limit=self._max_body_bytes)
            if caller is None or content is None or len(content) >= LARGE_BYTES:
                return False
            parsed = parse(content, caller)
            if not isinstance(parsed, Submission) or parsed.sync:
                return False
            require_permission(caller, parsed.command, parsed.session_id)
            header = sender.headers.get(IDEMPOTENCY_KEY)
            entry = self._admit(caller, parsed, Waits(), header=header, client=sender.client).entry
            size = self._load.reserve(entry)
        except Exception:
            return False
        if not self._access.count_ready(caller, len(body), sender.state):
            self._load.release(entry.source, size)
            return False
        log = sender.log
        if log:
            log.entry = entry

        def settle(result: Pushed | Exception) -> None:
            self._load.release(entry.source, size)
            try:
                if isinstance(result, Exception):
                    raise result
                self._note(entry, result, sender, begun_at=sender.begun_at)
                response = receipt_response(entry, result, status="accepted")
            except Unavailable as error:
                response = self._not_stored(entry, error, log)
            except Exception as error:
                done(error)
                return
            done(response)

        self._pusher.push_then(entry, settle)
        return True

    def _not_stored(self, entry: Entry, error: Unavailable, log: RequestLog | None) -> Response:
        """Returns the response to a sender whose webhook may not be stored, with the id for a retry."""
        self._metrics.count_error(error)
        if log:
            log.cause = error.code
        return error_response(error, {IDEMPOTENCY_KEY: entry.delivery_id})

    def _admit(self, caller: Caller, parsed: Parsed, waits: Waits, *, header: str | None, client: str) -> Admitted:
        """Make the entry, and check whether its sender may wait. Raises Invalid for an invalid delivery id."""
        own_id = parsed.delivery_id if isinstance(parsed, Submission) else None
        if "hook" in caller.scopes:
            header = None  # The hook's event already has its id.
        wait_seconds = _choose_wait(parsed, waits)
        delivery_id = caller.signed.id if caller.signed else choose_delivery_id(header, own_id)
        if isinstance(parsed, IgnoredEvent):
            entry = Entry(
                source=caller.source,
                delivery_id=delivery_id,
                hash=parsed.hash,
                command="",
                session_id=None,
                data=EMPTY_OBJECT,
                accepted_at=datetime.now(UTC),
                scopes=list(caller.scopes),
                session_glob=caller.session_glob,
                ignored=parsed.reason,
                client=client,
            )
            return Admitted(entry, wait_seconds)
        entry = make_entry(
            parsed,
            source=caller.source,
            delivery_id=delivery_id,
            accepted_at=datetime.now(UTC),
            scopes=list(caller.scopes),
            session_glob=caller.session_glob,
            waits=wait_seconds > 0 and self.has_place(caller.source),
            client=client,
            is_unnamed=not caller.signed and header is None and own_id is None,
        )
        read = parsed.command if isinstance(parsed.command, ReadCommand) else None
        return Admitted(entry, wait_seconds, read, _task_to_wait_for(parsed, waits), parsed.is_flat)

    def has_place(self, source: str) -> bool:
        """Whether a slot is free for the sender to wait. Otherwise its webhook is stored, and pending at once."""
        try:
            self._limiter.require_free_slot(source)
        except (TooManyRequests, Unavailable):
            return False
        return True

    async def deliver(self, sender: Sender, caller: Caller, admitted: Admitted) -> Response:
        """Push an entry; answer with its receipt, or with its outcome if its sender waits and the outcome arrives in
        time. Raises Conflict, TooManyRequests, Unavailable, or Unauthorized if the key was revoked meanwhile."""
        entry, wait_seconds, task = admitted.entry, admitted.wait_seconds, admitted.task
        log = sender.log
        if log:
            log.entry = entry
        if not entry.waits:
            pushed = await self.push(entry, sender)
            return receipt_response(entry, pushed, status="pending" if wait_seconds else "accepted")
        with self._limiter.acquire(entry.source), self._access.watch_caller(sender.receive, caller) as gone:
            if task is None:
                pushed, outcome = await self._push_and_wait(sender, entry, gone, seconds=wait_seconds)
            else:
                pushed, outcome = await self._wait_for_task(sender, caller, entry, task, gone)
            if outcome is not None and admitted.read is not None and is_incomplete(outcome, admitted.read):
                outcome = await self._repeat(caller, entry, admitted.read, outcome)
        if log:
            log.outcome = "pending" if outcome is None else "applied" if outcome.status < 400 else "rejected"
        if outcome is None:
            response = receipt_response(entry, pushed, status="pending")
        else:
            response = outcome_response(outcome, is_flat=admitted.is_flat)
        self._access.require_not_revoked(caller)
        return response

    async def push(self, entry: Entry, sender: Sender | None = None) -> Pushed:
        """Store an entry, and note that in the request's log. Raises Unavailable, or TooManyRequests if its source has
        used its share of the backlog."""
        begun_at = time.perf_counter() if sender is None else sender.begun_at
        size = self._load.reserve(entry)
        try:
            pushed = await self._pusher.push(entry)
        finally:
            self._load.release(entry.source, size)
        self._note(entry, pushed, sender, begun_at=begun_at)
        return pushed

    def _note(self, entry: Entry, pushed: Pushed, sender: Sender | None, *, begun_at: float) -> None:
        """Count an entry that is stored, and note it in the request's log."""
        if pushed.verdict != "conflict":
            self._metrics.count_stored(is_repeated=pushed.verdict == "duplicate", begun_at=begun_at)
            if sender is not None and (log := sender.log):
                log.accepted(entry, is_new=pushed.verdict == "accepted", is_answered_later=entry.waits)

    async def _push_and_wait(
        self, sender: Sender, entry: Entry, gone: asyncio.Future[None], *, seconds: float
    ) -> tuple[Pushed, Outcome | None]:
        """Push, then wait until the outcome arrives, the time is over, the client disconnects, or the process stops."""
        key = outcome_key(entry.source, entry.delivery_id, entry.hash)
        with self._outcomes.watch(key, accepted_at=entry.accepted_at) as outcome:
            pushed = await self.push(entry, sender)
            if pushed.verdict != "conflict":
                await wait_any(outcome, gone, self._stopping, seconds=seconds)
            return pushed, outcome.result() if outcome.done() else None

    async def _repeat(self, caller: Caller, entry: Entry, read: ReadCommand, outcome: Outcome) -> Outcome:
        """Repeat a read that was incomplete at its place in the order, where other senders wait for it. Returns the
        first outcome if that fails, and in a relay without Postgres."""
        if self._read_again is None:
            return outcome
        try:
            return await self._read_again(caller, entry, read)
        except (TooManyRequests, Unavailable):
            return outcome

    async def _wait_for_task(
        self, sender: Sender, caller: Caller, entry: Entry, task: GetTask, gone: asyncio.Future[None]
    ) -> tuple[Pushed, Outcome | None]:
        """Read a task in order with the session's commands; then read it again until it has finished or asks. A relay
        without Postgres cannot read again, so its sender gets the first read."""
        clock = asyncio.get_running_loop().time
        ends_at = clock() + task.wait
        with self._tasks.settled(entry.session_id or "", task.task_id) as settled:
            seconds = max(task.wait, LEAST_READ_SECONDS)
            pushed, outcome = await self._push_and_wait(sender, entry, gone, seconds=seconds)
            while outcome is not None and self._read_again is not None and not is_settled(outcome):
                left = ends_at - clock()
                if left <= 0:
                    break
                await wait_any(settled, gone, self._stopping, seconds=min(left, LOOK_SECONDS))
                if gone.done() or self._stopping.is_set():
                    break
                settled.clear()
                try:
                    outcome = await self._read_again(caller, entry, task)
                except (TooManyRequests, Unavailable):
                    continue  # The previous read is still the best answer.
        return pushed, outcome


def _choose_wait(parsed: Parsed, waits: Waits) -> float:
    if isinstance(parsed, IgnoredEvent):
        return 0.0
    if waits.asked_seconds is not None:
        return waits.asked_seconds
    return SYNC_WAIT_SECONDS if parsed.sync else waits.default_seconds


def _task_to_wait_for(parsed: Submission, waits: Waits) -> GetTask | None:
    """Returns the task that the sender waits for, at most as long as it waits for the response."""
    if not isinstance(parsed.command, GetTask) or not parsed.command.wait or waits.asked_seconds == 0:
        return None
    wait = parsed.command.wait if waits.asked_seconds is None else min(parsed.command.wait, waits.asked_seconds)
    return msgspec.structs.replace(parsed.command, wait=wait)

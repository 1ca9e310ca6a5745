"""The way of a webhook through the relay: accept it, push it, wait for its outcome if asked to, and answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.access.scopes import allows
from models.commands.definitions import EMPTY_OBJECT, GetTask
from models.commands.payloads import Submission, parse_envelope, parse_flat
from models.errors import Conflict, TooManyRequests, Unavailable
from models.field_types import MAX_WAIT_SECONDS
from models.queue.inbox import Entry, Outcome, make_entry, outcome_key
from models.settings import Settings
from relay.auth.access_control import AccessControl
from relay.auth.api_key_cache import ApiKeyCache
from relay.auth.authentication import Caller, require_permission
from relay.auth.signing_secrets import webhook_secrets
from relay.delivery_ids import HEADER as IDEMPOTENCY_KEY
from relay.delivery_ids import choose_delivery_id
from relay.http.bodies import UnauthenticatedBytes, read_body, without_mark
from relay.http.forms import is_form, payload_of
from relay.http.query_parameters import decode_parameters
from relay.http.responses import JsonResponse, error_response
from relay.http.signature_headers import is_from_github
from relay.http.waiting import wait_any
from relay.ingest.drain_enqueuer import DrainEnqueuer
from relay.ingest.pusher import BATCHES_IN_FLIGHT, Pushed, Pusher
from relay.ingest.signed_bodies import IgnoredEvent, parse_signed
from relay.ingest.token_webhooks import answer_handshake, parse_hook, read_event, split_parameters
from relay.limits.concurrency import ConcurrencyLimiter
from relay.limits.load_shedding import LoadShedder
from relay.limits.request_rates import RequestRates
from relay.notifications.outcomes import OutcomeWaiters
from relay.notifications.tasks import LOOK_SECONDS, TaskNotifier, is_settled, task_of
from relay.redis_client import REDIS_ERRORS, open_redis
from relay.rejections import RejectionLog

SYNC_WAIT_SECONDS = 30.0
"""For `sync: true`: within what HTTP clients and proxies usually grant."""
COMMAND_WAIT_SECONDS = 10.0
"""For /v1/commands: whoever calls a command by its address wants its answer."""
SIDE_CONNECTIONS = 14
"""For looking at outcomes, keys, rates and the load, health, deliveries, and one for each channel that is followed."""

PENDING = "Safely stored; it will take effect. Do not send it again; ask status_url."
RETRY_AFTER_SECONDS = 5
WAITING_PLACES = 1_000
"""For senders that wait for outcomes in this process: each costs a connection and some 20 kB."""
LAST_LOOK_SECONDS = 2.0
"""For the last answer to a read that was patient, beyond its time."""
RESTART_SECONDS = 1.0

logger = logging.getLogger(__name__)


Parse = Callable[[bytes, Caller], Submission | IgnoredEvent]
TellCaller = Callable[[bytes], Awaitable[Caller]]


class WaitParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The parameters of a POST."""

    wait: Annotated[float, Meta(ge=0, le=MAX_WAIT_SECONDS)] | None = None


class Ingest:
    """The ingest of one process: its connections to Redis, its background tasks, and its endpoints."""

    def __init__(self, settings: Settings) -> None:
        """Connects nothing yet. Raises SettingsError without a credential or REDIS_URL."""
        signers = {secret.source for secret in webhook_secrets(settings)}
        self.redis: Redis = open_redis(settings.redis_url, connections=SIDE_CONNECTIONS)
        """For whatever else this process asks of Redis."""
        self._key_cache = ApiKeyCache(self.redis, other_names=signers, first_key=settings.api_key)
        self.access = AccessControl(settings, self._key_cache, RequestRates(self.redis, settings))
        self.refusals = RejectionLog(self.redis)
        """Of requests to this process."""
        self.stopping = asyncio.Event()
        """Set when the process is about to end: whoever waits is answered now."""
        self._push_redis: Redis = open_redis(settings.redis_url, connections=BATCHES_IN_FLIGHT)
        self._enqueuer = DrainEnqueuer(settings.redis_url)
        self._pusher = Pusher(self._push_redis, wake=self._enqueuer.enqueue)
        self._outcomes = OutcomeWaiters(self.redis)
        self.tasks = TaskNotifier(self.redis)
        """For who waits for what becomes of tasks."""
        self._load = LoadShedder(
            self.redis, max_backlog=settings.max_backlog, require_durable=settings.require_durable_redis
        )
        self._limiter = ConcurrencyLimiter(WAITING_PLACES)
        self._max_body_bytes = settings.max_body_bytes
        self._unproven = UnauthenticatedBytes(body_limit=settings.max_body_bytes)

    @property
    def routes(self) -> list[Route]:
        """Where webhooks and commands are posted to."""
        return [
            Route("/v1/webhook", self.post_webhook, methods=["POST"]),
            Route("/webhook", self.post_webhook, methods=["POST"]),
            Route("/v1/commands/{command}", self.post_command, methods=["POST"]),
            Route("/v1/hooks/{token}", self.post_hook, methods=["POST", "HEAD"]),
        ]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the background tasks within the block. Starts also while Redis is away."""
        self._enqueuer.start()
        await asyncio.gather(self._load.sample(), self._key_cache.refresh())
        services = [self._key_cache.run, self._load.run, self._pusher.run, self._outcomes.run, self.tasks.run]
        services += [self.refusals.run, self.access.run]
        tasks = [asyncio.create_task(keep_running(service)) for service in services]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.to_thread(self._enqueuer.stop)
            await self.refusals.flush()
            await self._push_redis.aclose()
            await self.redis.aclose()

    def refusal(self) -> str | None:
        """Why no webhooks are taken at the moment, if none are."""
        try:
            self._load.check()
        except Unavailable as error:
            return error.message
        return None

    def redis_answers(self) -> bool:
        """Whether Redis did all that was asked of it the last time."""
        return self._load.is_answered

    async def push(self, entry: Entry) -> Pushed:
        """Store an entry. Raises Unavailable, or TooManyRequests if its source has its share of the backlog."""
        with self._load.reserve(entry):
            return await self._pusher.push(entry)

    async def post_webhook(self, request: Request) -> Response:
        """Take an envelope."""
        takes_forms = is_from_github(request.headers)

        def parse(body: bytes, caller: Caller) -> Submission | IgnoredEvent:
            if takes_forms and is_form(request.headers, body):
                body = payload_of(body)
            return parse_signed(body, event=caller.signed.event) if caller.signed else parse_envelope(body)

        tell_caller = await self.access.authenticate_with_body(request)
        return await self._take(request, tell_caller, parse, wait_seconds=0.0, takes_forms=takes_forms)

    async def post_command(self, request: Request) -> Response:
        """Take the data of the command that the path names."""
        name = request.path_params["command"]

        def parse(body: bytes, _: Caller) -> Submission:
            return parse_flat(name, body)

        return await self._take(
            request, await self.access.authenticate_with_body(request), parse, wait_seconds=COMMAND_WAIT_SECONDS
        )

    async def post_hook(self, request: Request) -> Response:
        """Take any JSON, or a form, for the session of the token in the path."""
        tell_caller = await self.access.authenticate_token_webhook(request, request.path_params["token"])
        if request.method == "HEAD":  # Trello asks so whether there is a receiver.
            return Response()
        self._load.check()
        own, parameters = split_parameters(request.query_params)
        asked = decode_parameters(own, WaitParameters).wait
        body = await read_body(request, limit=self._max_body_bytes, takes_forms=True)
        caller = await tell_caller(body)
        async with self.access.large_bodies.turn(body):
            event = read_event(body, headers=request.headers, parameters=parameters)
            if answer := answer_handshake(event, parameters):
                return answer
            submission = parse_hook(event, session_id=caller.session_glob or "", name=caller.source)
        return await self.take(request, caller, submission, wait_seconds=0.0, asked_seconds=asked)

    async def _take(
        self,
        request: Request,
        tell_caller: TellCaller,
        parse: Parse,
        *,
        wait_seconds: float,
        takes_forms: bool = False,
    ) -> Response:
        self._load.check()
        asked = decode_parameters(request.query_params, WaitParameters).wait
        limit = self._max_body_bytes
        body = await read_body(request, limit=limit, unproven=self._unproven, takes_forms=takes_forms)
        caller = await tell_caller(body)
        async with self.access.large_bodies.turn(body):
            parsed = parse(without_mark(body), caller)
        return await self.take(request, caller, parsed, wait_seconds=wait_seconds, asked_seconds=asked)

    async def take(
        self,
        request: Request,
        caller: Caller,
        parsed: Submission | IgnoredEvent,
        *,
        wait_seconds: float,
        asked_seconds: float | None = None,
    ) -> Response:
        """Take what a caller sends, by whatever door, and answer it. The sender waits for as long as it asked to, or
        for `wait_seconds`. Raises Forbidden, Conflict, TooManyRequests, or Unavailable if nothing was stored."""
        self._load.check()
        if isinstance(parsed, Submission):
            require_permission(caller, parsed.command, parsed.session_id)
        wait_seconds = _choose_wait(parsed, asked_seconds, default_seconds=wait_seconds)
        waits = wait_seconds > 0 and self.has_place(caller.source)
        patience_seconds = _patience_of(parsed)
        if asked_seconds is not None:
            patience_seconds = min(patience_seconds, asked_seconds)
        entry = _accept(parsed, caller, header=request.headers.get(IDEMPOTENCY_KEY), waits=waits)
        try:
            answer = await self.submit(
                request, caller, entry, wait_seconds=wait_seconds, patience_seconds=patience_seconds
            )
            if entry.waits:
                self.access.require_not_revoked(caller)
            return _with_flat_field(answer) if isinstance(parsed, Submission) and parsed.is_flat else answer
        except Unavailable as error:
            return error_response(error, {IDEMPOTENCY_KEY: entry.delivery_id})

    def has_place(self, source: str) -> bool:
        """Whether the sender may wait. Without a place its webhook is stored all the same, and told at once to be
        pending."""
        try:
            self._limiter.require_free_slot(source)
        except (TooManyRequests, Unavailable):
            return False
        return True

    async def submit(
        self, request: Request, caller: Caller, entry: Entry, *, wait_seconds: float, patience_seconds: float = 0
    ) -> Response:
        """Store an entry, and answer with its receipt; or with its outcome, if it waits and that comes in time. One
        that reads a task is read again for so long as it is patient, until the task has finished or asks."""
        if not entry.waits:
            return _receipt(entry, await self.push(entry), status="pending" if wait_seconds else "accepted")
        with self._limiter.acquire(entry.source), self.access.watch_caller(request, caller) as gone:
            if patience_seconds:
                return await self._ask_until_settled(entry, gone, patience_seconds=patience_seconds)
            pushed, outcome = await self._push_and_wait(entry, gone, seconds=wait_seconds)
        return _receipt(entry, pushed, status="pending") if outcome is None else _answer(outcome)

    async def _push_and_wait(
        self, entry: Entry, gone: asyncio.Future[None], *, seconds: float
    ) -> tuple[Pushed, Outcome | None]:
        """Until the outcome is there, the time is over, the sender has gone, or the process stops."""
        key = outcome_key(entry.source, entry.delivery_id, entry.hash)
        with self._outcomes.watch(key, accepted_at=entry.accepted_at) as outcome:
            pushed = await self.push(entry)
            if pushed.verdict != "conflict":
                await wait_any(outcome, gone, self.stopping, seconds=seconds)
            return pushed, outcome.result() if outcome.done() else None

    async def _ask_until_settled(
        self, entry: Entry, gone: asyncio.Future[None], *, patience_seconds: float
    ) -> Response:
        """A read that is sent again under its id is done again, at its new place in the order."""
        clock = asyncio.get_running_loop().time
        ends_at = clock() + patience_seconds
        key = outcome_key(entry.source, entry.delivery_id, entry.hash)
        last: Outcome | None = None
        with self.tasks.settled(*task_of(entry)) as settled:
            while True:
                settled.clear()
                left = max(ends_at - clock(), LAST_LOOK_SECONDS)
                pushed, outcome = await self._push_and_wait(entry, gone, seconds=left)
                last = outcome or last
                if outcome is None or is_settled(outcome) or clock() >= ends_at:
                    return _receipt(entry, pushed, status="pending") if last is None else _answer(last)
                await wait_any(settled, gone, self.stopping, seconds=min(ends_at - clock(), LOOK_SECONDS))
                if gone.done() or self.stopping.is_set():
                    return _answer(outcome)
                await self._forget(key)

    async def _forget(self, key: str) -> None:
        """Drop an outcome that would be taken for the one to come."""
        try:
            await self._outcomes.forget(key)
        except REDIS_ERRORS as error:
            raise Unavailable("The inbox does not answer at the moment; try again in some seconds.") from error


async def keep_running(service: Callable[[], Awaitable[None]]) -> None:
    """Run a background service until cancelled; a bug in it is logged, and it is started again."""
    while True:
        try:
            await service()
        except Exception:  # Whatever it is, webhooks must go on.
            logger.exception("Bug: a background service ended.")
        await asyncio.sleep(RESTART_SECONDS)


def _choose_wait(parsed: Submission | IgnoredEvent, asked: float | None, *, default_seconds: float) -> float:
    if isinstance(parsed, IgnoredEvent):
        return 0.0
    if asked is not None:
        return asked
    return SYNC_WAIT_SECONDS if parsed.sync else default_seconds


def _patience_of(parsed: Submission | IgnoredEvent) -> float:
    """How long a read wants to wait for something to read."""
    return parsed.command.wait if isinstance(parsed, Submission) and isinstance(parsed.command, GetTask) else 0.0


def _accept(parsed: Submission | IgnoredEvent, caller: Caller, *, header: str | None, waits: bool) -> Entry:
    own_id = parsed.delivery_id if isinstance(parsed, Submission) else None
    if "hook" in caller.scopes:
        header = None  # It is the own id already, whatever it is made of.
    origin: dict[str, Any] = {
        "source": caller.source,
        "delivery_id": caller.signed.id if caller.signed else choose_delivery_id(header, own_id),
        "accepted_at": datetime.now(UTC),
        "scopes": list(caller.scopes),
        "session_glob": caller.session_glob,
        "waits": waits,
    }
    if isinstance(parsed, Submission):
        is_unnamed = not caller.signed and header is None and own_id is None
        return make_entry(parsed, is_unnamed=is_unnamed, **origin)
    return Entry(hash=parsed.hash, command="", session_id=None, data=EMPTY_OBJECT, ignored=parsed.reason, **origin)


def _receipt(entry: Entry, pushed: Pushed, *, status: str) -> Response:
    if pushed.verdict == "conflict":
        raise Conflict(
            "Another command was sent under this delivery id before.",
            code="delivery_conflict",
            field="id",
            hint=f"Send it under a new id; GET {_status_url(entry)} shows what became of the other.",
        )
    content = {
        "status": "ignored" if entry.ignored else status,
        "delivery_id": entry.delivery_id,
        "session_id": pushed.receipt.session_id,
        "command": pushed.receipt.command,
        "status_url": _status_url(entry),
        "duplicate": pushed.verdict == "duplicate",
    }
    if status == "pending":
        content["message"] = PENDING
    if entry.ignored:
        content["reason"] = entry.ignored
    return JsonResponse(content, 202)


def _answer(outcome: Outcome) -> Response:
    headers = {"retry-after": str(RETRY_AFTER_SECONDS)} if outcome.status in (429, 503) else None
    return JsonResponse(bytes(outcome.body), outcome.status, headers)


def _with_flat_field(answer: Response) -> Response:
    """The answer to a command whose fields stood at the top: an error names its field by the path that it has there."""
    if answer.status_code < HTTPStatus.BAD_REQUEST:
        return answer
    content = msgspec.json.decode(bytes(answer.body))
    field = content["error"].get("field")
    if field is None or not field.startswith("data."):
        return answer
    content["error"]["field"] = field.removeprefix("data.")
    return JsonResponse(content, answer.status_code)


def _status_url(entry: Entry) -> str:
    # Who cannot read does not ask; whoever asks has another source of its own.
    return f"/v1/deliveries/{entry.delivery_id}" + ("" if allows(entry.scopes, "read") else f"?source={entry.source}")

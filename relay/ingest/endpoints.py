"""The endpoints of webhooks and commands, and the connections and background tasks that a process needs for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial

from msgspec.structs import replace
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from models.commands.payloads import parse_envelope, parse_flat
from models.errors import RelayError, Unavailable
from models.process.tracing import Tracing, start_tracing
from models.settings import Settings
from relay.auth.access_control import AccessControl
from relay.auth.api_key_cache import ApiKeyCache
from relay.auth.authentication import Caller
from relay.auth.signing_secrets import webhook_secrets
from relay.http.bodies import MAX_ADDRESS_BYTES, MAX_UNPROVEN_BYTES, UnauthenticatedBytes
from relay.http.form_bodies import is_form, payload_of
from relay.http.routing import route
from relay.http.signature_headers import is_from_github
from relay.ingest.drain_enqueuer import DrainEnqueuer
from relay.ingest.pipeline import Parsed, Pipeline, ReadAgain, Sender
from relay.ingest.pusher import BATCHES_IN_FLIGHT, Pusher
from relay.ingest.signed_bodies import parse_signed
from relay.ingest.token_webhooks import answer_handshake, parse_hook, read_event, split_parameters
from relay.limits.concurrency import ConcurrencyLimiter
from relay.limits.load_shedding import LoadShedder
from relay.limits.request_rates import RequestRates
from relay.notifications.outcomes import OutcomeWaiters
from relay.notifications.tasks import TaskNotifier
from relay.process_metrics import WAITING_SENDERS, ProcessMetrics
from relay.redis_client import open_redis
from relay.rejections import KEPT_PER_SECOND, RejectionLog

COMMAND_WAIT_SECONDS = 10.0
"""For /v1/commands, whose callers expect the outcome."""
SIDE_CONNECTIONS = 14
"""For outcomes, keys, rate limits, load, health, deliveries, and one for each subscribed channel."""

WAITING_PLACES = 1_000
"""Senders that may wait for outcomes: each costs a connection and about 20 kB."""
RESTART_SECONDS = 1.0
STOP_SECONDS = 0.5
"""Time for background services to end before they are cancelled again."""
STOP_ATTEMPTS = 10

logger = logging.getLogger(__name__)


class Ingest:
    """One process' ingest: its connections to Redis, its background tasks, and its endpoints."""

    def __init__(self, settings: Settings, *, read_again: ReadAgain | None = None) -> None:
        """Does not connect yet. `read_again` repeats a read for a sender that waits for it. Raises SettingsError
        without a credential or REDIS_URL."""
        signers = {secret.source for secret in webhook_secrets(settings)}
        self.redis: Redis = open_redis(settings.redis_url, connections=SIDE_CONNECTIONS)
        """For everything but pushes."""
        self._key_cache = ApiKeyCache(self.redis, other_names=signers, first_key=settings.api_key)
        self.access = AccessControl(settings, self._key_cache, RequestRates(self.redis, settings))
        self.rejections = RejectionLog(self.redis, kept_per_second=settings.part_of(KEPT_PER_SECOND))
        """Rejected requests of this process."""
        self.metrics = ProcessMetrics(self.redis)
        self.stopping = asyncio.Event()
        """Set when the process is about to end, to answer all waiting requests."""
        self._push_redis: Redis = open_redis(settings.redis_url, connections=BATCHES_IN_FLIGHT)
        self._enqueuer = DrainEnqueuer(settings.redis_url)
        self._pusher = Pusher(self._push_redis, wake=self._enqueuer.enqueue, count=self.metrics.count_push)
        self._outcomes = OutcomeWaiters(self.redis)
        self.tasks = TaskNotifier(self.redis)
        """Notifies requests that wait for tasks."""
        self._load = LoadShedder(
            self.redis,
            max_backlog=settings.max_backlog,
            require_durable=settings.require_durable_redis,
            processes=settings.relay_processes,
        )
        limiter = ConcurrencyLimiter(settings.part_of(WAITING_PLACES))
        self.metrics.show(WAITING_SENDERS, limiter.count)
        self._tracing = start_tracing(settings, process="relay")
        self.pipeline = _make_pipeline(self._tracing)(
            access=self.access,
            load=self._load,
            pusher=self._pusher,
            outcomes=self._outcomes,
            tasks=self.tasks,
            metrics=self.metrics,
            limiter=limiter,
            stopping=self.stopping,
            unproven=UnauthenticatedBytes(
                body_limit=settings.max_body_bytes,
                share_bytes=settings.part_of(MAX_ADDRESS_BYTES),
                all_bytes=settings.part_of(MAX_UNPROVEN_BYTES),
            ),
            max_body_bytes=settings.max_body_bytes,
            read_again=read_again,
        )

    @property
    def routes(self) -> list[Route]:
        """The routes of webhooks and commands."""
        return [
            route("webhook", self.post_webhook),
            route("webhook_alias", self.post_webhook),
            route("command", self.post_command),
            route("hook", self.post_hook),
        ]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the background tasks within the block. Starts even while Redis is unavailable."""
        self._enqueuer.start()
        await asyncio.gather(self._load.sample(), self._key_cache.refresh())
        services = [self._key_cache.run, self._load.run, self._pusher.run, self._outcomes.run, self.tasks.run]
        services += [self.rejections.run, self.metrics.run, self.access.run]
        tasks = [asyncio.create_task(keep_running(service)) for service in services]
        try:
            yield
        finally:
            await stop_services(tasks)
            await asyncio.to_thread(self._enqueuer.stop)
            await self.rejections.flush()
            await self.metrics.end()
            await self._push_redis.aclose()
            await self.redis.aclose()
            if self._tracing:
                await asyncio.to_thread(self._tracing.stop)

    def record_error(self, scope: Scope, error: RelayError) -> None:
        """Record the error that answers a request."""
        self.rejections.record(scope, error)
        self.metrics.count_error(error)

    def refusal(self) -> str | None:
        """Returns why no webhooks are accepted at the moment, or None."""
        try:
            self._load.check()
        except Unavailable as error:
            return error.message
        return None

    def redis_answers(self) -> bool:
        """Whether Redis answered the last sample."""
        return self._load.is_answered

    async def post_webhook(self, request: Request) -> Response:
        """Accept an envelope."""
        return await self.accept_webhook(Sender.of(request.scope, request.receive))

    async def post_command(self, request: Request) -> Response:
        """Accept the data of the command in the path."""
        sender = Sender.of(request.scope, request.receive)
        return await self.accept_command(sender, name=request.path_params["command"])

    async def post_hook(self, request: Request) -> Response:
        """Accept any JSON, or a form, for the session of the token in the path."""
        return await self.accept_event(Sender.of(request.scope, request.receive), name=request.path_params["token"])

    async def accept_webhook(self, sender: Sender) -> Response:
        """Accept an envelope."""
        headers = sender.headers
        takes_forms = is_from_github(headers)

        def parse(body: bytes, caller: Caller) -> Parsed:
            if takes_forms and is_form(headers, body):
                body = payload_of(body)
            return parse_signed(body, event=caller.signed.event) if caller.signed else parse_envelope(body)

        authenticate = await self.access.authenticate_with_body(headers, sender.state)
        return await self.pipeline.run(sender, authenticate, parse, takes_forms=takes_forms)

    async def accept_command(self, sender: Sender, *, name: str) -> Response:
        """Accept the data of the command with this name."""
        authenticate = await self.access.authenticate_with_body(sender.headers, sender.state)
        return await self.pipeline.run(
            sender, authenticate, lambda body, _: parse_flat(name, body), default_wait_seconds=COMMAND_WAIT_SECONDS
        )

    async def accept_event(self, sender: Sender, *, name: str) -> Response:
        """Accept any JSON, or a form, for the session of the token with this name."""
        headers = sender.headers
        authenticate = await self.access.authenticate_token_webhook(name, sender.state)
        if sender.method == "HEAD":  # Trello verifies a receiver like this.
            return Response()
        own, parameters = split_parameters(sender.query)

        def parse(body: bytes, caller: Caller) -> Parsed | Response:
            event = read_event(body, headers=headers, parameters=parameters)
            if answer := answer_handshake(event, parameters):
                return answer
            return parse_hook(event, session_id=caller.session_glob or "", name=caller.source)

        sender = replace(sender, query=own)
        return await self.pipeline.run(sender, authenticate, parse, takes_forms=True, is_known=True)


def _make_pipeline(tracing: Tracing | None) -> Callable[..., Pipeline]:
    if tracing is None:
        return Pipeline
    from relay.ingest.traced_pipeline import TracedPipeline  # Imports OpenTelemetry.

    return partial(TracedPipeline, tracing.tracer)


async def keep_running(service: Callable[[], Awaitable[None]]) -> None:
    """Run a background service until cancelled. A bug in it is logged, and the service restarted."""
    while True:
        try:
            await service()
        except Exception:  # Webhooks must go on.
            logger.exception("Bug: a background service ended.")
        await asyncio.sleep(RESTART_SECONDS)


async def stop_services(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel background services until all have ended: one may miss a cancellation that arrives together with what it
    waits for. Gives up after STOP_ATTEMPTS, since the process ends anyway."""
    running = {task for task in tasks if not task.done()}
    for _ in range(STOP_ATTEMPTS):
        if not running:
            return
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=STOP_SECONDS)
    if running:
        services = "service" if len(running) == 1 else "services"
        logger.error("Bug: %d background %s did not stop: %s", len(running), services, running)

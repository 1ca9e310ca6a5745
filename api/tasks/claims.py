"""Endpoints for claiming tasks, keeping leases and reporting results.

Claims and leases are changed in Postgres directly. Results change the session, so they go through the inbox like any
command: they keep their order, and are not lost while Postgres is away.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Raw
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.database import Database
from api.tasks.claim_waiters import ClaimWaiter, ClaimWaiters
from api.tasks.lease_defaults import DEFAULT_LEASE_SECONDS, LeaseSeconds
from models import field_types as v
from models.commands.agent_commands import NOTHING, Artifacts, AskTask, ClaimCommand, CompleteTask, FailTask, Text
from models.commands.content_ids import content_hash
from models.commands.definitions import AddArtifact, JsonValue
from models.commands.derived_ids import with_ids
from models.commands.lenient_decoding import decode_leniently
from models.decoding.strict import decode_json
from models.errors import NotJson
from models.queue.inbox import JOURNAL_CHANNEL, Entry
from models.queue.task_notifications import TASKS_CHANNEL, ClaimToken, TaskNotification, claim_token, read_claim_token
from models.timestamps import format_utc
from relay.auth.authentication import Caller, require_session
from relay.http.query_parameters import NoParameters, decode_parameters
from relay.http.responses import JsonResponse
from relay.http.routing import route
from relay.http.waiting import wait_any
from relay.ingest.endpoints import Ingest
from relay.ingest.pipeline import Admitted, Sender
from relay.redis_client import REDIS_ERRORS
from sessions.postgres.tasks.claims import ClaimCriteria, ClaimedTask, NoTask, claim
from sessions.postgres.tasks.leases import Lease, extend, release, start

MAX_REQUEST_BYTES = 65_536
"""Applies to all requests except those that carry a result."""
ID_DIGITS = 40
"""Hex digits of the hash used as the delivery id: 160 bits."""

T = TypeVar("T")


class ClaimRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request for a task to claim."""

    agent_name: v.Id
    worker: Annotated[v.Name, Meta(description="The agent's process or machine, as free text")] | None = None
    wait: Annotated[float, Meta(ge=0, le=v.MAX_WAIT_SECONDS, description="Seconds to wait for a task")] = 0.0
    lease_seconds: Annotated[LeaseSeconds, Meta(description="Any call with the claim token extends the lease")] = (
        DEFAULT_LEASE_SECONDS
    )
    task_types: (
        Annotated[
            list[v.Label],
            Meta(min_length=1, max_length=50, description="For tasks that name no agent; default: the agent's type"),
        ]
        | None
    ) = None
    created_by: Annotated[v.Name, Meta(description="Only tasks delegated with this key")] | None = None


class HeartbeatRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A heartbeat with the progress of the work."""

    progress: Annotated[str, Meta(max_length=2_000)] | None = None
    percent: Annotated[float, Meta(ge=0, le=100)] | None = None
    lease_seconds: LeaseSeconds | None = None


class NoDetails(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An empty body."""


class CompleteRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The result of a completed task."""

    output: JsonValue = NOTHING
    artifacts: Artifacts = msgspec.field(default_factory=list)


class FailRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The reason for a failure. `retryable` says that another attempt may succeed."""

    error: Text
    retryable: bool = False


class AskRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question for the delegator, without whose answer the agent cannot continue."""

    question: Text


class Claims:
    """The endpoints."""

    def __init__(self, *, ingest: Ingest, database: Database, waiters: ClaimWaiters, max_body_bytes: int) -> None:
        self._access = ingest.access
        self._ingest = ingest
        self._redis: Redis = ingest.redis
        self._database = database
        self._waiters = waiters
        self._max_body_bytes = max_body_bytes

    @property
    def routes(self) -> list[Route]:
        """The routes for claiming and working on tasks."""
        return [
            route("claim_task", self.claim),
            route("heartbeat_claim", self.heartbeat),
            route("start_claim", self.start),
            route("release_claim", self.release),
            route("complete_claim", self.complete),
            route("fail_claim", self.fail),
            route("ask_claim", self.ask),
        ]

    async def claim(self, request: Request) -> Response:
        """Claim the first task available to the agent, with its token. Responds 204 without a task in time."""
        caller = await self._access.authorize(request, "agent")
        decode_parameters(request.query_params, NoParameters)
        task = await self.claim_task(request, caller, await self._read(request, caller, ClaimRequest))
        if task is None:
            return Response(status_code=204, headers={"cache-control": "no-store"})
        return JsonResponse(task)

    async def claim_task(self, request: Request, caller: Caller, body: ClaimRequest) -> dict[str, Any] | None:
        """Claim a task and return it with its token, or None without a task in time."""
        criteria = ClaimCriteria(
            agent_name=body.agent_name,
            worker=body.worker or body.agent_name,
            lease_seconds=body.lease_seconds,
            source=caller.source,
            session_glob=caller.session_glob,
            task_types=tuple(dict.fromkeys(body.task_types)) if body.task_types else None,
            created_by=body.created_by,
        )
        found = await (self._wait(request, caller, criteria, body.wait) if body.wait else self._claim(criteria))
        if isinstance(found, NoTask):
            return None
        token = claim_token(found.secret, session_id=found.session_id, task_id=found.task["task_id"])
        return {"claim_token": token, **found.task}

    async def heartbeat(self, request: Request) -> Response:
        """Extend the lease. The response says if the task was cancelled."""
        caller, token, body = await self._authorize(request, HeartbeatRequest)
        return JsonResponse(await self.extend(caller, token, body))

    async def extend(self, caller: Caller, token: ClaimToken, body: HeartbeatRequest) -> dict[str, Any]:
        """Extend the lease of a claim, store the progress, and return the lease."""
        progress = {"text": body.progress, "percent": body.percent}
        known = {name: value for name, value in progress.items() if value is not None}
        stored = msgspec.json.encode(known | {"at": format_utc(datetime.now(UTC))}) if known else None
        work = partial(extend, claim=token, lease_seconds=body.lease_seconds, progress=stored)
        return _describe(await self._database.write(work, source=caller.source))

    async def start(self, request: Request) -> Response:
        """Record that the work has begun."""
        caller, token, _ = await self._authorize(request, NoDetails)
        work = partial(start, claim=token, source=caller.source)
        lease = await self._database.write(work, source=caller.source)
        await self._publish(token.session_id)
        return JsonResponse(_describe(lease))

    async def release(self, request: Request) -> Response:
        """Return the task to the queue."""
        caller, token, _ = await self._authorize(request, NoDetails)
        return JsonResponse(await self.release_claim(caller, token))

    async def release_claim(self, caller: Caller, token: ClaimToken) -> dict[str, Any]:
        """Return a claimed task to the queue, and return the ended lease."""
        work = partial(release, claim=token, source=caller.source)
        lease, notification = await self._database.write(work, source=caller.source)
        await self._publish(token.session_id, notification)
        return _describe(lease)

    async def complete(self, request: Request) -> Response:
        """Store the result with its artifacts."""
        caller, token, body = await self._authorize(request, CompleteRequest, limit=self._max_body_bytes)
        return await self.finish(request, caller, token, body)

    async def fail(self, request: Request) -> Response:
        """Report that the task failed."""
        caller, token, body = await self._authorize(request, FailRequest, limit=self._max_body_bytes)
        return await self.finish(request, caller, token, body)

    async def ask(self, request: Request) -> Response:
        """Ask the task's delegator."""
        caller, token, body = await self._authorize(request, AskRequest, limit=self._max_body_bytes)
        return await self.finish(request, caller, token, body)

    async def finish(
        self, request: Request, caller: Caller, token: ClaimToken, body: CompleteRequest | FailRequest | AskRequest
    ) -> Response:
        """Send the end of a claim through the inbox. A repeated request is the same delivery and gets the same
        response."""
        claim: dict[str, Any] = {"task_id": token.task_id, "claim": token.hash}
        command: ClaimCommand
        match body:
            case CompleteRequest():
                artifacts = [_of_task(artifact, token.task_id) for artifact in body.artifacts]
                name, command = "complete_task", CompleteTask(**claim, output=body.output, artifacts=artifacts)
            case FailRequest():
                name, command = "fail_task", FailTask(**claim, error=body.error, retryable=body.retryable)
            case AskRequest():
                name, command = "ask_task", AskTask(**claim, question=body.question)
        data = msgspec.json.encode(command)
        fingerprint = content_hash([name, token.session_id, msgspec.json.decode(data)])
        sender = Sender.of(request.scope, request.receive)
        entry = Entry(
            source=caller.source,
            delivery_id=f"claim-{fingerprint[:ID_DIGITS]}",
            hash=fingerprint,
            command=name,
            session_id=token.session_id,
            data=Raw(data),
            accepted_at=datetime.now(UTC),
            scopes=list(caller.scopes),
            session_glob=caller.session_glob,
            waits=self._ingest.pipeline.has_place(caller.source),
            client=sender.client,
        )
        return await self._ingest.pipeline.deliver(sender, caller, Admitted(entry, v.MAX_WAIT_SECONDS))

    async def _claim(self, criteria: ClaimCriteria) -> ClaimedTask | NoTask:
        found = await self._database.write(partial(claim, wanted=criteria), source=criteria.source)
        if isinstance(found, ClaimedTask):
            await self._publish(found.session_id)
        return found

    async def _wait(
        self, request: Request, caller: Caller, criteria: ClaimCriteria, seconds: float
    ) -> ClaimedTask | NoTask:
        """Try to claim now and at each notification, until the time is over."""
        clock = asyncio.get_running_loop().time
        ends_at = clock() + seconds
        waiter = ClaimWaiter(
            agent_name=criteria.agent_name,
            types=criteria.task_types or (),
            created_by=criteria.created_by,
            sees=caller.sees,
        )
        is_known = criteria.task_types is not None
        with (
            self._waiters.wait(waiter, source=caller.source),
            self._access.watch_caller(request.receive, caller) as gone,
        ):
            gone.add_done_callback(lambda _: waiter.woken.set())
            while True:
                self._waiters.set_idle(waiter)
                found = await self._claim(criteria)
                if isinstance(found, ClaimedTask):
                    if gone.done():  # The client has disconnected and cannot receive the task.
                        token = claim_token(found.secret, session_id=found.session_id, task_id=found.task["task_id"])
                        await self.release_claim(caller, read_claim_token(token))
                        self._access.require_not_revoked(caller)
                    return found
                if not is_known:
                    # The accepted types were unknown until now, so a notification may have been missed.
                    waiter.types, is_known = found.types, True
                    continue
                if found.is_full:
                    self._waiters.set_full(waiter)
                await wait_any(waiter.woken, self._ingest.stopping, seconds=max(ends_at - clock(), 0))
                self._access.require_not_revoked(caller)
                if not waiter.woken.is_set() or gone.done() or self._ingest.stopping.is_set():
                    return found
                self._access.require_valid(caller)

    async def _authorize(
        self, request: Request, shape: type[T], *, limit: int = MAX_REQUEST_BYTES
    ) -> tuple[Caller, ClaimToken, T]:
        """Authorize a request. Returns the caller, the claim in the path, and the decoded body."""
        caller = await self._access.authorize(request, "agent")
        token = read_claim_token(request.path_params["claim_token"])
        require_session(caller, token.session_id)
        decode_parameters(request.query_params, NoParameters)
        return caller, token, await self._read(request, caller, shape, limit=limit)

    async def _read(self, request: Request, caller: Caller, shape: type[T], *, limit: int = MAX_REQUEST_BYTES) -> T:
        body = await self._access.read_body(request, caller, limit=limit) or b"{}"
        if not isinstance(decode_json(body), dict):
            raise NotJson("The body is JSON, but not an object.", code="not_an_object", expected="a JSON object: {...}")
        return decode_leniently(body, shape)

    async def _publish(self, session_id: str, notification: TaskNotification | None = None) -> None:
        """Notify waiters. A lost notification is made up for by polling."""
        with contextlib.suppress(*REDIS_ERRORS):
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.publish(JOURNAL_CHANNEL, session_id)
                if notification:
                    pipeline.publish(TASKS_CHANNEL, msgspec.json.encode(notification))
                await pipeline.execute()


def _of_task(artifact: AddArtifact, task_id: str) -> AddArtifact:
    named = with_ids(msgspec.structs.replace(artifact, task_id=task_id))
    assert isinstance(named, AddArtifact)
    return named


def _describe(lease: Lease) -> dict[str, Any]:
    return {
        "session_id": lease.session_id,
        "task_id": lease.task_id,
        "status": lease.status,
        "cancelled": lease.status == "cancelled",
        "attempt": lease.attempt,
        "lease_expires_at": lease.lease_expires_at and format_utc(lease.lease_expires_at),
    }

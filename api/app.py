"""The public app: the relay's routes, which do not need Postgres, and all others, which do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

from starlette.applications import Starlette
from starlette.middleware import Middleware

from api.database import Database, claim_threads
from api.mcp.endpoint import McpEndpoint
from api.oauth.endpoints import OAuth
from api.openapi.docs_page import docs_routes
from api.openapi.document import openapi_route
from api.openapi.llm_instructions import instructions_route
from api.operations.api_keys import Keys
from api.operations.dead_letters import DeadLetters
from api.operations.deliveries import Deliveries
from api.operations.metrics import Metrics
from api.operations.status import Status
from api.operations.throughput import Throughput
from api.pages.admin.endpoints import Operations
from api.pages.endpoints import Pages
from api.pages.error_pages import ErrorPagesMiddleware
from api.sessions.events import Events, find_positions
from api.sessions.exports import Exports
from api.sessions.imports import Imports
from api.sessions.reader import Reader
from api.sessions.repeated_reads import read_again
from api.sessions.session_reads import Reads
from api.tasks.agents import Agents
from api.tasks.claim_waiters import MAX_WAITING, ClaimWaiters
from api.tasks.claims import Claims
from models.routes import template_of
from models.settings import Settings
from relay.app import INGEST_LINKS, assemble
from relay.auth.signing_secrets import webhook_secrets
from relay.health import health_routes
from relay.ingest.endpoints import Ingest, keep_running, stop_services
from relay.notifications.journal import MAX_LISTENERS, JournalNotifier
from relay.process_metrics import WAITING_CLAIMS
from relay.rejections import rejection_routes
from sessions.api_keys import connect_register
from sessions.embeddings.configured import configured_encoder

LINKS = {
    **INGEST_LINKS,
    "sessions": template_of("read_sessions"),
    "search": f"{template_of('read_search')}?q=",
    "deliveries": template_of("read_deliveries"),
    "docs": template_of("docs"),
    "openapi": template_of("openapi"),
    "instructions": template_of("instructions"),
}
LAST_WAIT_SECONDS = 1.0
"""For reads that wait for a thread when the process is told to stop: enough for a short queue, and little of the time
that the process has."""
LOAD_AFTER_SECONDS = 1.0
"""From the start of the app until it loads the model of meanings, so that it listens and responds before."""


def create_app(settings: Settings) -> Starlette:
    """Create the public app. Raises SettingsError if it cannot start with these settings."""
    database = Database(settings)
    ingest = Ingest(settings, read_again=partial(read_again, database))
    claims_database = Database(settings, name="claims", threads=claim_threads(settings), relay_threads=0)
    journal = JournalNotifier(ingest.redis, partial(find_positions, database), limit=settings.part_of(MAX_LISTENERS))
    waiters = ClaimWaiters(database, limit=settings.part_of(MAX_WAITING))
    ingest.tasks.listen(waiters.notify)
    ingest.metrics.show(WAITING_CLAIMS, waiters.count)
    database.show_threads(ingest.metrics, pool="reads")
    claims_database.show_threads(ingest.metrics, pool="claims")
    access = ingest.access
    claims = Claims(ingest=ingest, database=claims_database, waiters=waiters, max_body_bytes=settings.max_body_bytes)
    mcp = McpEndpoint(settings, access=access, ingest=ingest, claims=claims)
    register = connect_register(settings, taken_names={secret.source for secret in webhook_secrets(settings)})
    encoder = configured_encoder(settings)
    reader = Reader(database)
    events = Events(access=access, database=database, journal=journal, stopping=ingest.stopping)
    exports = Exports(access=access, database=database)
    deliveries = Deliveries(access=access, database=database, redis=ingest.redis)
    dead_letters = DeadLetters(access=access, database=database, push=ingest.pipeline.push)
    keys = Keys(access=access, register=register)
    agents = Agents(access=access, database=database)
    throughput = Throughput(ingest.redis)
    status = Status(
        access=access,
        database=database,
        redis=ingest.redis,
        refusal=ingest.refusal,
        max_backlog=settings.max_backlog,
    )
    pages = Pages(
        settings,
        access=access,
        redis=ingest.redis,
        reader=reader,
        events=events,
        exports=exports,
        pipeline=ingest.pipeline,
        operations=Operations(
            deliveries=deliveries,
            dead_letters=dead_letters,
            keys=keys,
            status=status,
            throughput=throughput,
            rejections=ingest.rejections,
            agents=agents,
        ),
        record_rejection=ingest.rejections.record,
    )

    async def postgres() -> Mapping[str, str]:
        if not await database.is_there():
            return {"postgres": "unavailable"}
        return {"postgres": "ok", **({"schema": database.schema_trouble} if database.schema_trouble else {})}

    async def end_waiting() -> None:
        await ingest.stopping.wait()
        await asyncio.sleep(LAST_WAIT_SECONDS)
        database.end_waiting()
        claims_database.end_waiting()

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        async with ingest.running(), mcp.run():
            services = [
                asyncio.create_task(keep_running(service))
                for service in (journal.run, waiters.run, throughput.run, end_waiting)
            ]
            loading = (
                asyncio.get_running_loop().call_later(LOAD_AFTER_SECONDS, encoder.begin_loading) if encoder else None
            )
            try:
                yield
            finally:
                if loading:
                    loading.cancel()
                await stop_services(services)
                database.close()
                claims_database.close()
                register.close()

    routes = [
        *health_routes(ingest, links=LINKS, information=postgres, page=pages.index),
        openapi_route(public_url=settings.public_url),
        instructions_route(public_url=settings.public_url),
        *docs_routes(),
        *ingest.routes,
        *rejection_routes(ingest.rejections, access=access),
        *status.routes,
        *Metrics(
            access=access,
            database=database,
            redis=ingest.redis,
            process=ingest.metrics,
            refusal=ingest.refusal,
            max_backlog=settings.max_backlog,
        ).routes,
        *deliveries.routes,
        *dead_letters.routes,
        *keys.routes,
        *claims.routes,
        *mcp.routes,
        *OAuth(
            access=access,
            redis=ingest.redis,
            register=register,
            public_url=settings.public_url,
            first_key=settings.api_key,
        ).routes,
        *Reads(access=access, reader=reader, tasks=ingest.tasks, stopping=ingest.stopping).routes,
        *agents.routes,
        *exports.routes,
        *Imports(access=access, database=database).routes,
        *events.routes,
        *pages.routes,
    ]
    outer = [Middleware(ErrorPagesMiddleware)]
    return assemble(routes, ingest, settings=settings, running=running(), outer=outer)

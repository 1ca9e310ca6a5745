"""The pages: puts them together, and attaches them to their addresses."""

from __future__ import annotations

from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.pages.admin.endpoints import Operations, admin_routes
from api.pages.browser_sessions import BrowserSessions
from api.pages.commands import PageCommands
from api.pages.conversation import Conversation
from api.pages.session_items import SessionItems
from api.pages.session_list import SessionList
from api.pages.session_page import SessionPages
from api.pages.sign_in import SignIn
from api.pages.visitors import Visitor, Visitors
from api.sessions.events import Events
from api.sessions.exports import Exports
from api.sessions.reader import Reader
from api.static_files import static_route
from models.settings import Settings
from relay.auth.access_control import AccessControl
from relay.http.responses import RecordRejection
from relay.http.routing import Handler, route
from relay.ingest.pipeline import Pipeline


class Pages:
    """The endpoints for browsers."""

    def __init__(
        self,
        settings: Settings,
        *,
        access: AccessControl,
        redis: Redis,
        reader: Reader,
        events: Events,
        exports: Exports,
        pipeline: Pipeline,
        operations: Operations,
        record_rejection: RecordRejection,
    ) -> None:
        sessions = BrowserSessions(redis)
        self._events = events
        self._exports = exports
        self._visitors = Visitors(
            access=access, sessions=sessions, public_url=settings.public_url, max_body_bytes=settings.max_body_bytes
        )
        self._sign_in = SignIn(
            access=access, visitors=self._visitors, sessions=sessions, record_rejection=record_rejection
        )
        self._commands = PageCommands(
            visitors=self._visitors, reader=reader, pipeline=pipeline, record_rejection=record_rejection
        )
        self._admin = admin_routes(operations, visitors=self._visitors, public_url=settings.public_url)
        pages = SessionPages(reader)
        self._list = SessionList(reader)
        self._conversation = Conversation(pages)
        self._items = SessionItems(pages)

    @property
    def index(self) -> Handler:
        """The handler of the first page."""
        return self._visitors.page(self._list.show)

    @property
    def routes(self) -> list[Route]:
        """The routes of all other pages."""
        pages = {
            "page_session": self._conversation.show,
            "page_memories": self._items.memories,
            "page_memory": self._items.memory,
            "page_tasks": self._items.tasks,
            "page_task": self._items.task,
            "page_artifacts": self._items.artifacts,
            "page_artifact": self._items.artifact,
            "page_download": self._items.download,
            "page_journal": self._items.journal,
            "page_export": self.export,
            "page_events": self.follow,
        }
        return [
            static_route(),
            *self._sign_in.routes,
            *self._commands.routes,
            *self._admin,
            *(route(name, self._visitors.page(handle)) for name, handle in pages.items()),
        ]

    async def export(self, request: Request, visitor: Visitor) -> Response:
        """Send a whole session as a file."""
        return await self._exports.send(request, visitor.caller)

    async def follow(self, request: Request, visitor: Visitor) -> Response:
        """Stream a session's events to a page."""
        return await self._events.stream(request, visitor.caller, named=False)

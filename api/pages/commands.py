"""What visitors change: each form is sent as a command through the pipeline of all commands."""

from __future__ import annotations

import hashlib
import re
from typing import Any
from unicodedata import normalize

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.pages.rendering import new_form_id, render
from api.pages.sign_in import redirect
from api.pages.texts import clean_title
from api.pages.visitors import Form, Visitor, Visitors, own_path
from api.sessions.reader import Reader
from models.commands.definitions import COMMANDS, GetSessionSummary
from models.commands.payloads import parse_flat
from models.errors import NotFound, RelayError
from models.routes import path_to
from relay.auth.authentication import require_scope
from relay.http.responses import RecordRejection
from relay.http.routing import route
from relay.ingest.endpoints import COMMAND_WAIT_SECONDS
from relay.ingest.pipeline import Pipeline, Sender, Waits

SENT = frozenset(
    name for name, command in COMMANDS.items() if not command.is_read and command.in_batch and command.scope != "admin"
)
"""Commands that forms may send: no reads, deletes or batches. Deleting a session has a form of its own, as its name
must be typed."""
LISTS = ("tags",)
"""Fields that hold several values with commas between them."""
FIRST_ERROR = 400
STORED = 202
CONFLICT = 409
NAME_CHARACTERS = 2_000
NOT_CONFIRMED = "Nothing was deleted: what you typed is not the name of this session."

_FORM_ID = re.compile(r"[A-Za-z0-9_-]{16}")


class PageCommands:
    """The endpoints of the forms."""

    def __init__(
        self, *, visitors: Visitors, reader: Reader, pipeline: Pipeline, record_rejection: RecordRejection
    ) -> None:
        self._visitors = visitors
        self._reader = reader
        self._pipeline = pipeline
        self._record_rejection = record_rejection

    @property
    def routes(self) -> list[Route]:
        """The routes of all forms that change sessions."""
        return [
            route("page_command", self._visitors.form(self.send)),
            route("page_new_session", self._visitors.form(self.create)),
            route("page_delete", self._visitors.form(self.delete)),
        ]

    async def create(self, request: Request, visitor: Visitor, form: Form) -> Response:
        """Create a session and lead to it."""
        return await self._submit(request, visitor, "create_session", form)

    async def send(self, request: Request, visitor: Visitor, form: Form) -> Response:
        """Send a command of the session in the path, and lead back to the page of the form."""
        command = request.path_params["command"]
        if command not in SENT:
            raise NotFound("The pages have no form for this command.")
        return await self._submit(request, visitor, command, form | {"session_id": request.path_params["session_id"]})

    async def delete(self, request: Request, visitor: Visitor, form: Form) -> Response:
        """Delete the session in the path, if its name was typed, and lead to the list."""
        session_id = request.path_params["session_id"]
        require_scope(visitor.caller, "admin")
        typed, back = _spelled(form.pop("name", "")), own_path(form.get("back", ""))
        summary = await self._reader.read(visitor.caller, session_id, GetSessionSummary(max_characters=NAME_CHARACTERS))
        if typed not in {_spelled(session_id), _spelled(clean_title(summary.data["title"] or ""))} - {""}:
            return _refuse(CONFLICT, {"message": NOT_CONFIRMED}, back, {})
        return await self._submit(
            request, visitor, "delete_session", form | {"session_id": session_id, "confirm": session_id}
        )

    async def _submit(self, request: Request, visitor: Visitor, command: str, form: Form) -> Response:
        back = own_path(form.pop("back", ""))
        fields = _fields_of(form)
        try:
            submission = parse_flat(command, msgspec.json.encode(fields))
            waits = Waits(default_seconds=COMMAND_WAIT_SECONDS)
            sender = Sender.of(request.scope, request.receive)
            response = await self._pipeline.submit(sender, visitor.caller, submission, waits)
        except RelayError as error:
            self._record_rejection(request.scope, error)
            return _refuse(error.status, error.body(), back, form)
        content: dict[str, Any] = msgspec.json.decode(bytes(response.body))
        if response.status_code >= FIRST_ERROR:
            return _refuse(response.status_code, content["error"], back, form)
        if response.status_code == STORED:
            return render("stored.html", status=STORED, back=back)
        if command == "create_session":
            return redirect(path_to("page_session", session_id=content["session_id"]))
        if command == "delete_session":
            return redirect(path_to("index"))
        return redirect(back)


def _spelled(name: str) -> str:
    """Return a name for comparison with what somebody typed: equal characters, and single spaces."""
    return " ".join(normalize("NFC", name).split())


def _fields_of(form: Form) -> dict[str, Any]:
    """Return the fields of the command. What was left empty is omitted. The delivery id is that of the form and its
    content: a form that was corrected and sent again is another delivery."""
    form_id = form.pop("form_id", "")
    given = {name: value for name, value in form.items() if value.strip()}
    digest = hashlib.sha256(msgspec.json.encode(sorted(given.items()))).hexdigest()[:16]
    fields: dict[str, Any] = {
        name: [part.strip() for part in value.split(",") if part.strip()] if name in LISTS else value
        for name, value in given.items()
    }
    name = form_id if _FORM_ID.fullmatch(form_id) else new_form_id()
    return fields | {"id": f"page-{name}-{digest}"}


def _refuse(status: int, error: dict[str, Any], back: str, form: Form) -> Response:
    """Return a page with the reason, and with what was written, so that it is not lost."""
    written = next((form[name] for name in ("content", "description", "answer", "title") if form.get(name)), "")
    return render("refused.html", status=status, error=error, back=back, written=written)

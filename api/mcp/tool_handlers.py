"""Handles tool calls: sends commands and manages task claims on behalf of the caller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import Raw
from starlette.requests import Request
from starlette.responses import Response

from api.mcp.command_tools import COMMAND_TOOLS
from api.mcp.messages import Message
from api.mcp.results import DATA_NOTICE, TASK_NOTICE
from api.mcp.tools import ClaimTask, ReportTask, SendCommand
from api.tasks.claims import AskRequest, ClaimRequest, Claims, CompleteRequest, FailRequest, HeartbeatRequest
from models.commands.lenient_decoding import decode_leniently
from models.commands.payloads import Submission, fields_of, parse_envelope, parse_flat
from models.error_parsing import parse_error
from models.queue.task_notifications import read_claim_token
from relay.auth.authentication import Caller, require_scope, require_session
from relay.ingest.endpoints import COMMAND_WAIT_SECONDS, Ingest
from relay.ingest.pipeline import Sender, Waits

Json = dict[str, Any]
FIRST_ERROR = 400
SHOWN = ("status", "message", "session_id", "data", "updates", "delivery_id")
"""The fields of a response that a model can use."""


class ToolHandlers:
    """Handlers of all tools. Each call raises a RelayError if it is refused."""

    def __init__(self, *, ingest: Ingest, claims: Claims) -> None:
        self._ingest = ingest
        self._claims = claims
        self._tools: dict[str, Callable[[Request, Caller, Raw], Awaitable[Json]]] = {
            "claim_task": self._claim,
            "report_task": self._report,
            "send_command": self._send_any,
        }

    @property
    def names(self) -> list[str]:
        """The names of all tools."""
        return [*COMMAND_TOOLS, *self._tools]

    async def call(self, request: Request, name: str, message: Message) -> Json:
        """Call a tool on behalf of the caller."""
        if name not in COMMAND_TOOLS:
            return await self._tools[name](request, request.state.caller, message.arguments)
        return await self._submit(request, message.submission or parse_flat(name, bytes(message.arguments)))

    async def send(self, request: Request, command: str, data: bytes) -> Json:
        """Send a command in the form of /v1/commands and return its response."""
        return await self._submit(request, parse_flat(command, data))

    async def _send_any(self, request: Request, _: Caller, arguments: Raw) -> Json:
        call = decode_leniently(arguments, SendCommand)
        fields = fields_of(call.data, "data.")
        envelope = {"command": call.command, "session_id": call.session_id, "id": fields.pop("id", None)}
        return await self._submit(request, parse_envelope(msgspec.json.encode({**envelope, "data": fields})))

    async def _submit(self, request: Request, submission: Submission) -> Json:
        waits = Waits(default_seconds=COMMAND_WAIT_SECONDS)
        response = await self._ingest.pipeline.submit(
            Sender.of(request.scope, request.receive), request.state.caller, submission, waits
        )
        return _answer(response, notice=DATA_NOTICE if submission.command.is_read else "")

    async def _claim(self, request: Request, caller: Caller, arguments: Raw) -> Json:
        require_scope(caller, "agent")
        call = decode_leniently(arguments, ClaimTask)
        task = await self._claims.claim_task(request, caller, ClaimRequest(**msgspec.structs.asdict(call)))
        content: Json = msgspec.json.decode(msgspec.json.encode({"task": task}))
        return content | ({"notice": TASK_NOTICE} if task else {})

    async def _report(self, request: Request, caller: Caller, arguments: Raw) -> Json:
        require_scope(caller, "agent")
        report = decode_leniently(arguments, ReportTask)
        token = read_claim_token(report.claim_token)
        require_session(caller, token.session_id)
        match report.status:
            case "working":
                lease = await self._claims.extend(
                    caller, token, HeartbeatRequest(progress=report.progress, percent=report.percent)
                )
                return _of_lease(lease, "Stop: the task was cancelled." if lease["cancelled"] else "Continue.")
            case "released":
                return _of_lease(await self._claims.release_claim(caller, token), "Released the task.")
            case "completed":
                end: CompleteRequest | FailRequest | AskRequest = CompleteRequest(
                    output=report.output, artifacts=report.artifacts
                )
            case "failed":
                end = FailRequest(error=report.error or "", retryable=report.retryable)
            case "question":
                end = AskRequest(question=report.question or "")
        return _answer(await self._claims.finish(request, caller, token, end))


def _answer(response: Response, *, notice: str = "") -> Json:
    """Return the fields of a response that a model needs. Raises the error of an error response."""
    content: Json = msgspec.json.decode(bytes(response.body))
    if response.status_code >= FIRST_ERROR:
        raise parse_error(content, status=response.status_code)
    shown = {name: content[name] for name in SHOWN if name in content}
    return shown | ({"notice": notice} if notice else {})


def _of_lease(lease: Json, message: str) -> Json:
    return {"status": "success", "message": message, "session_id": lease["session_id"], "data": lease}

"""The OpenAPI operations other than commands and the reads derived from them."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from api.openapi.docs_page import FileParameters
from api.openapi.gpt_actions import DocumentParameters
from api.openapi.llm_instructions import InstructionsParameters
from api.openapi.responses import ANY, BODY, COMMAND, KEYED, OPEN
from api.operations.api_keys import KeyChoice, KeyRequest
from api.operations.dead_letters import ManyDeadLetters, OneDeadLetter
from api.operations.deliveries import ManyDeliveries, OneDelivery
from api.sessions.events import EventParameters
from api.sessions.exports import ExportParameters
from api.sessions.imports import SessionDocument
from api.tasks.agents import AgentParameters, AgentRequest
from api.tasks.claims import AskRequest, ClaimRequest, CompleteRequest, FailRequest, HeartbeatRequest, NoDetails
from models.routes import template_of
from relay.http.client_addresses import EXEMPT_PATHS
from relay.http.query_parameters import NoParameters
from relay.rejections import RejectionParameters


class Operation(NamedTuple):
    """An operation: the name of its route, its summary, its parameters and its response."""

    name: str
    summary: str
    parameters: type[msgspec.Struct] | None
    answer: str | None
    """The component of a JSON response."""
    is_open: bool = False
    status: str = "200"
    more_types: tuple[str, ...] = ()
    """Further media types of the response: on request beside JSON, or always without a JSON component."""
    body: type[msgspec.Struct] | None = None
    conflicts: bool = False
    """True if the request may conflict with the stored state."""
    others: tuple[tuple[str, str], ...] = ()
    """Alternative statuses of the same response, with their conditions; 204 has no content."""
    goes_through_inbox: bool = False
    """True if it is answered like a command, possibly only with a receipt."""

    @property
    def path(self) -> str:
        """The path, with parameters in braces."""
        return template_of(self.name)

    @property
    def refusals(self) -> frozenset[int]:
        """The error statuses of the operation."""
        if self.goes_through_inbox:
            return COMMAND
        statuses = ANY if self.path in EXEMPT_PATHS else OPEN if self.is_open else KEYED
        return statuses.union(
            {404} if "{" in self.path or self.conflicts else (),
            {409} if self.conflicts else (),
            {422} if self.parameters else (),
            BODY if self.body else (),
        )


OPERATIONS = (
    Operation("index", "List the URLs of this service.", None, "Object", is_open=True),
    Operation("health", "Check that the process is alive.", None, "Object", is_open=True),
    Operation(
        "readiness",
        "Check that the relay accepts webhooks.",
        None,
        "Object",
        is_open=True,
        others=(("503", "The relay does not accept webhooks at the moment."),),
    ),
    Operation(
        "metrics",
        "Get the metrics of all processes, for Prometheus. Needs METRICS_KEY, or a key with the scope `admin`.",
        NoParameters,
        None,
        more_types=("text/plain", "application/openmetrics-text"),
    ),
    Operation(
        "openapi",
        "Get this document, or with client=gpt the version for the Actions of a custom GPT.",
        DocumentParameters,
        "Object",
        is_open=True,
    ),
    Operation(
        "instructions",
        "Get the instructions for LLMs as text; with tier=short a version that fits into custom instructions.",
        InstructionsParameters,
        None,
        is_open=True,
        more_types=("text/plain",),
    ),
    Operation("docs", "Show this document as a web page.", None, None, is_open=True, more_types=("text/html",)),
    Operation(
        "docs_file",
        "Get a file of the documentation page.",
        FileParameters,
        None,
        is_open=True,
        more_types=("text/javascript", "text/css", "image/png"),
    ),
    Operation("read_deliveries", "List deliveries, newest first.", ManyDeliveries, "List"),
    Operation("read_delivery", "Get the status of one delivery.", OneDelivery, "Delivery"),
    Operation(
        "read_dead_letters",
        "List dead letters, or with status=parked events rejected because of their session's state; oldest first.",
        ManyDeadLetters,
        "List",
    ),
    Operation(
        "read_dead_letter",
        "Get a dead letter or parked event with its payload and traceback.",
        OneDeadLetter,
        "Object",
    ),
    Operation(
        "discard_dead_letter",
        "Discard a dead letter or parked event.",
        OneDeadLetter,
        "Object",
        status="202",
    ),
    Operation(
        "replay_dead_letter",
        "Return a dead letter or parked event to the inbox; it takes effect once.",
        OneDeadLetter,
        "Object",
        status="202",
    ),
    Operation(
        "replay_dead_letters",
        "Return all matching dead letters or parked events to the inbox.",
        ManyDeadLetters,
        "Object",
        status="202",
    ),
    Operation(
        "read_status",
        "Get the relay's status: its servers, the backlog and its age by shard, workers, dead letters.",
        NoParameters,
        "Object",
    ),
    Operation("read_refusals", "List rejected requests, newest first.", RejectionParameters, "List"),
    Operation("whoami", "Get the name, scopes and session pattern of the key that you send.", NoParameters, "Object"),
    Operation("read_keys", "List all keys without their secrets, oldest first.", NoParameters, "List"),
    Operation(
        "create_key",
        "Create a key. Only this response contains its secret.",
        NoParameters,
        "NewKey",
        status="201",
        body=KeyRequest,
        conflicts=True,
    ),
    Operation(
        "revoke_key",
        "Revoke a key, or all keys of a name.",
        KeyChoice,
        "Object",
    ),
    Operation(
        "read_agents",
        "List the agents to which tasks can be delegated, with their claimed tasks.",
        AgentParameters,
        "List",
    ),
    Operation(
        "register_agent",
        "Register an agent, or update its registration.",
        NoParameters,
        "Object",
        body=AgentRequest,
    ),
    Operation(
        "claim_task",
        "Claim the first task available to an agent; with wait, waits for one.",
        NoParameters,
        "ClaimedTask",
        body=ClaimRequest,
        others=(("204", "No task is available."),),
    ),
    *(
        Operation(
            f"{action}_claim",
            summary,
            NoParameters,
            "Lease",
            body=body,
            conflicts=True,
        )
        for action, summary, body in (
            (
                "heartbeat",
                "Extend the lease and report progress; the response says if the task was cancelled.",
                HeartbeatRequest,
            ),
            ("start", "Record that the work has begun.", NoDetails),
            ("release", "Return the task to the queue.", NoDetails),
        )
    ),
    *(
        Operation(
            f"{action}_claim",
            summary,
            NoParameters,
            "CommandResponse",
            body=body,
            goes_through_inbox=True,
        )
        for action, summary, body in (
            ("complete", "Complete the task with its result and artifacts.", CompleteRequest),
            ("fail", "Report that the task failed; it is retried if it is retryable.", FailRequest),
            ("ask", "Ask the task's delegator; the task waits for the answer.", AskRequest),
        )
    ),
    Operation(
        "read_events",
        "List a session's events after a cursor; with wait, waits for new ones. With Accept: text/event-stream, "
        "streams them regardless of the limit.",
        EventParameters,
        "List",
        more_types=("text/event-stream",),
    ),
    Operation(
        "export_session",
        "Export a whole session as one document.",
        ExportParameters,
        "Object",
        more_types=("text/markdown",),
    ),
    Operation(
        "import_session",
        "Import a whole session from its exported document. Repeating it changes nothing.",
        NoParameters,
        "Imported",
        body=SessionDocument,
        conflicts=True,
    ),
)

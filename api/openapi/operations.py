"""The operations that are no commands, and no reads that stand for one: what the OpenAPI document says of them."""

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
from api.sessions.session_reads import TranscriptParameters
from api.tasks.agents import AgentParameters, AgentRequest
from api.tasks.claims import AskRequest, ClaimRequest, CompleteRequest, FailRequest, HeartbeatRequest, NoDetails
from models.routes import template_of
from relay.http.client_addresses import EXEMPT_PATHS
from relay.http.query_parameters import NoParameters
from relay.rejections import RejectionParameters


class Operation(NamedTuple):
    """The name of its address, what it is for, its parameters, its answer."""

    name: str
    summary: str
    parameters: type[msgspec.Struct] | None
    answer: str | None
    """The component of its JSON, if it is JSON."""
    is_open: bool = False
    status: str = "200"
    more_types: tuple[str, ...] = ()
    """In which it is answered on request, beside JSON, or always if it is none."""
    body: type[msgspec.Struct] | None = None
    conflicts: bool = False
    """Whether it may contradict what is there."""
    others: tuple[tuple[str, str], ...] = ()
    """Statuses with which the same is answered at other times, and when; 204 without content."""
    goes_through_inbox: bool = False
    """Whether it is answered as a command is: perhaps only with a receipt."""

    @property
    def path(self) -> str:
        """Its address, with parameters in braces."""
        return template_of(self.name)

    @property
    def refusals(self) -> frozenset[int]:
        """The errors that it may answer with."""
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
    Operation("index", "The addresses of this service.", None, "Object", is_open=True),
    Operation("health", "Whether the process is alive.", None, "Object", is_open=True),
    Operation(
        "readiness",
        "Whether webhooks can be taken now.",
        None,
        "Object",
        is_open=True,
        others=(("503", "They cannot, or not now."),),
    ),
    Operation(
        "openapi",
        "This document, or with client=gpt what the Actions of a custom GPT need of it.",
        DocumentParameters,
        "Object",
        is_open=True,
    ),
    Operation(
        "instructions",
        "What an LLM has to know to use this relay, as text; with tier=short what fits into custom instructions.",
        InstructionsParameters,
        None,
        is_open=True,
        more_types=("text/plain",),
    ),
    Operation("docs", "This document as a page.", None, None, is_open=True, more_types=("text/html",)),
    Operation(
        "docs_file",
        "A file that the page needs.",
        FileParameters,
        None,
        is_open=True,
        more_types=("text/javascript", "text/css", "image/png"),
    ),
    Operation("read_deliveries", "What became of webhooks, newest first.", ManyDeliveries, "List"),
    Operation("read_delivery", "What became of one webhook.", OneDelivery, "Delivery"),
    Operation(
        "read_dead_letters",
        "What could not be applied, or with status=parked what sessions did not take; oldest first.",
        ManyDeadLetters,
        "List",
    ),
    Operation(
        "read_dead_letter",
        "One dead letter, or parked event, with its payload and traceback.",
        OneDeadLetter,
        "Object",
    ),
    Operation(
        "discard_dead_letter",
        "Give up a dead letter, or a parked event.",
        OneDeadLetter,
        "Object",
        status="202",
    ),
    Operation(
        "replay_dead_letter",
        "Put a dead letter, or a parked event, back into the inbox; it takes effect once.",
        OneDeadLetter,
        "Object",
        status="202",
    ),
    Operation(
        "replay_dead_letters",
        "Put the dead letters, or parked events, that match back into the inbox.",
        ManyDeadLetters,
        "Object",
        status="202",
    ),
    Operation(
        "read_status",
        "How the relay is: its servers, what waits in each shard and for how long, workers, dead letters.",
        NoParameters,
        "Object",
    ),
    Operation("read_refusals", "Requests that were refused, newest first.", RejectionParameters, "List"),
    Operation("read_keys", "All keys without their secrets, oldest first.", NoParameters, "List"),
    Operation(
        "create_key",
        "Make a key; it is shown this once.",
        NoParameters,
        "NewKey",
        status="201",
        body=KeyRequest,
        conflicts=True,
    ),
    Operation(
        "revoke_key",
        "Refuse a key, or all keys of a name, from now on.",
        KeyChoice,
        "Object",
    ),
    Operation(
        "read_agents",
        "The agents that tasks can be delegated to, and what they hold.",
        AgentParameters,
        "List",
    ),
    Operation(
        "register_agent",
        "Make an agent known, or change what is known of it.",
        NoParameters,
        "Object",
        body=AgentRequest,
    ),
    Operation(
        "claim_task",
        "Take the first task that an agent may have; waits for one if asked to.",
        NoParameters,
        "ClaimedTask",
        body=ClaimRequest,
        others=(("204", "There is none."),),
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
            ("heartbeat", "Keep the task, and tell how far the work is; says when it was cancelled.", HeartbeatRequest),
            ("start", "Note that the work has begun.", NoDetails),
            ("release", "Put the task back into the queue.", NoDetails),
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
            ("complete", "Store the result of the task, and artifacts with it.", CompleteRequest),
            ("fail", "Give the task up; it is tried again if that is worth it.", FailRequest),
            ("ask", "Ask the one who delegated the task; it waits for the answer.", AskRequest),
        )
    ),
    Operation(
        "read_transcript",
        "The conversation of a session, chunk after chunk.",
        TranscriptParameters,
        "List",
    ),
    Operation(
        "read_events",
        "The journal of a session from a cursor on; waits for news, or streams with Accept: text/event-stream, then "
        "whatever the limit.",
        EventParameters,
        "List",
        more_types=("text/event-stream",),
    ),
    Operation(
        "export_session",
        "A whole session as one document.",
        ExportParameters,
        "Object",
        more_types=("text/markdown",),
    ),
    Operation(
        "import_session",
        "Take over a whole session from the document that its export is; repeated, it is left as it is.",
        NoParameters,
        "Imported",
        body=SessionDocument,
        conflicts=True,
    ),
)

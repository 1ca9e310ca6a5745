"""The OpenAPI document, made from the definitions that requests are decoded with."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.agents import AgentParameters
from api.dead_letters import ManyDeadLetters, OneDeadLetter
from api.deliveries import ManyDeliveries, OneDelivery
from api.events import EventParameters
from api.exports import ExportParameters
from api.reads import READS, TranscriptParameters
from api.schemas import COMPONENT, answer_schemas, component_schemas, flat_schema
from models import vocabulary as v
from models.commands import COMMANDS
from models.errors import ErrorBody
from models.payloads import Envelope
from relay.health import version
from relay.ingest import Waiting
from relay.responses import JsonResponse

OPENAPI_VERSION = "3.1.0"

Json = dict[str, Any]


class Operation(NamedTuple):
    """What is no command: its address, its name, what it is for, its parameters, its answer."""

    path: str
    name: str
    summary: str
    parameters: type[msgspec.Struct] | None
    answer: str
    is_open: bool = False
    method: str = "get"
    status: str = "200"


OPERATIONS = (
    Operation("/", "index", "The addresses of this service.", None, "Object", is_open=True),
    Operation("/healthz", "health", "Whether the process is alive.", None, "Object", is_open=True),
    Operation("/readyz", "readiness", "Whether webhooks can be taken now.", None, "Object", is_open=True),
    Operation("/openapi.json", "openapi", "This document.", None, "Object", is_open=True),
    Operation("/v1/deliveries", "read_deliveries", "What became of webhooks, newest first.", ManyDeliveries, "List"),
    Operation("/v1/deliveries/{delivery_id}", "read_delivery", "What became of one webhook.", OneDelivery, "Delivery"),
    Operation(
        "/v1/dead-letters", "read_dead_letters", "What could not be applied, oldest first.", ManyDeadLetters, "List"
    ),
    Operation(
        "/v1/dead-letters/{delivery_id}",
        "read_dead_letter",
        "One dead letter with its payload and traceback.",
        OneDeadLetter,
        "Object",
    ),
    Operation(
        "/v1/dead-letters/{delivery_id}",
        "discard_dead_letter",
        "Give up a dead letter.",
        OneDeadLetter,
        "Object",
        method="delete",
    ),
    Operation(
        "/v1/dead-letters/{delivery_id}/replay",
        "replay_dead_letter",
        "Put a dead letter back into the inbox; it takes effect once.",
        OneDeadLetter,
        "Object",
        method="post",
        status="202",
    ),
    Operation(
        "/v1/dead-letters/replay",
        "replay_dead_letters",
        "Put the dead letters that match back into the inbox.",
        ManyDeadLetters,
        "Object",
        method="post",
        status="202",
    ),
    Operation("/v1/agents", "read_agents", "The agents that tasks can be delegated to.", AgentParameters, "List"),
    Operation(
        "/v1/sessions/{session_id}/transcript",
        "read_transcript",
        "The conversation of a session, chunk after chunk.",
        TranscriptParameters,
        "List",
    ),
    Operation(
        "/v1/sessions/{session_id}/events",
        "read_events",
        "The journal of a session from a cursor on; waits for news, or streams with Accept: text/event-stream.",
        EventParameters,
        "List",
    ),
    Operation(
        "/v1/sessions/{session_id}/export",
        "export_session",
        "A whole session as one document.",
        ExportParameters,
        "Object",
    ),
)


def openapi_route() -> Route:
    """`/openapi.json`; the document is made once."""
    body = msgspec.json.encode(build_document())

    async def openapi(_: Request) -> Response:
        return JsonResponse(body)

    return Route("/openapi.json", openapi)


def build_document() -> Json:
    """All operations of the public app."""
    parameters = [operation.parameters for operation in OPERATIONS if operation.parameters]
    schemas = component_schemas([*COMMANDS.values(), Envelope, ErrorBody, Waiting, *parameters])
    paths: dict[str, Json] = {
        "/v1/webhook": {"post": _post_webhook(schemas)},
        "/webhook": {"post": _post_webhook(schemas) | {"operationId": "webhook_alias"}},
    }
    for name in COMMANDS:
        paths[f"/v1/commands/{name}"] = {"post": _post_command(name, schemas)}
    for read in READS:
        path = read.path.replace(":path}", "}")
        summary = (read.command.__doc__ or "").strip()
        answer = "List" if read.answer == "list" else "Object"
        paths[path] = {"get": _operation(path, read.name, summary, schemas[read.command.__name__], answer)}
    for operation in OPERATIONS:
        schema = schemas[operation.parameters.__name__] if operation.parameters else {}
        described = _operation(
            operation.path, operation.name, operation.summary, schema, operation.answer, operation.status
        )
        described |= {"security": []} if operation.is_open else {}
        paths.setdefault(operation.path, {})[operation.method] = described
    for definition in parameters:
        schemas.pop(definition.__name__, None)
    schemas.pop(Waiting.__name__, None)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "session-relay",
            "version": version(),
            "description": "A durable hub where LLMs, people and agents work on the same session, through webhooks.",
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}, {"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": schemas | answer_schemas(),
            "responses": {
                "Error": _response("The request was refused, or failed; `error` tells how to mend it.", "Error")
            },
            "securitySchemes": {
                "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _post_webhook(schemas: dict[str, Json]) -> Json:
    return {
        "operationId": "webhook",
        "summary": "Send any command in its envelope; it is stored durably and takes effect once.",
        "parameters": [*_parameters("", schemas[Waiting.__name__]), _IDEMPOTENCY_KEY],
        "requestBody": _request("Envelope"),
        "responses": _COMMAND_RESPONSES,
    }


def _post_command(name: str, schemas: dict[str, Json]) -> Json:
    definition = COMMANDS[name]
    component = f"{definition.__name__}Request"
    schemas[component] = flat_schema(definition, schemas[definition.__name__]) | {"title": component}
    return {
        "operationId": name,
        "summary": (definition.__doc__ or "").strip(),
        "parameters": [*_parameters("", schemas[Waiting.__name__]), _IDEMPOTENCY_KEY],
        "requestBody": _request(component),
        "responses": _COMMAND_RESPONSES,
    }


def _operation(path: str, name: str, summary: str, schema: Json, answer: str, status: str = "200") -> Json:
    return {
        "operationId": name,
        "summary": summary,
        "parameters": _parameters(path, schema),
        "responses": {status: _response("The answer.", answer), "default": {"$ref": "#/components/responses/Error"}},
    }


def _parameters(path: str, schema: Json) -> list[Json]:
    """Those of the path, then those of the query; a list has commas, or is a parameter repeated."""
    in_path = re.findall(r"{(\w+)}", path)
    known = {"session_id": msgspec.json.schema(v.Id), **schema.get("properties", {})}
    names = [*in_path, *(name for name in schema.get("properties", {}) if name not in in_path)]
    described = []
    for name in names:
        parameter = {
            "name": name,
            "in": "path" if name in in_path else "query",
            "required": name in in_path or name in schema["required"],
            "schema": known[name],
        }
        if known[name].get("type") == "array":
            parameter |= {"style": "form", "explode": False}
        described.append(parameter)
    return described


def _request(component: str) -> Json:
    return {"required": True, "content": {"application/json": {"schema": {"$ref": COMPONENT.format(name=component)}}}}


def _response(description: str, component: str) -> Json:
    return {
        "description": description,
        "content": {"application/json": {"schema": {"$ref": COMPONENT.format(name=component)}}},
    }


_IDEMPOTENCY_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The delivery id: what is sent again under the same one takes effect once.",
    "schema": msgspec.json.schema(v.DeliveryId),
}
_COMMAND_RESPONSES: Json = {
    "200": _response("It took effect; what was waited for is here.", "CommandResponse"),
    "202": _response("It is stored durably and will take effect.", "Receipt"),
    "default": {"$ref": "#/components/responses/Error"},
}

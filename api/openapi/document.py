"""The OpenAPI document, built from the definitions that decode requests. `gpt_actions` derives the document for custom
GPTs from it."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.deferred import Deferred
from api.openapi.gpt_actions import DocumentParameters, build_gpt_document
from api.openapi.operations import OPERATIONS, Operation
from api.openapi.responses import COMMAND, KEYED, answer, error_responses, header_components, response_components
from api.openapi.schemas import COMPONENT, answer_schemas, component_schemas, envelope_schema, flat_schema, schema_of
from api.public_url import public_url_of
from api.sessions.session_reads import READS, ReadRoute
from models import field_types as v
from models.commands.definitions import COMMANDS, Batch, Command
from models.commands.field_docs import describe_field
from models.commands.payloads import Envelope
from models.errors import ErrorBody
from models.routes import ADDRESSES, Tag, template_of
from models.version import version
from relay.http.query_parameters import decode_parameters
from relay.http.responses import JsonResponse
from relay.http.routing import route
from relay.ingest.pipeline import WaitParameters

OPENAPI_VERSION = "3.1.0"

Json = dict[str, Any]

START: Json = {"command": "create_session", "session_id": "evening-walk", "data": {"title": "Evening walk"}}
REMEMBER: Json = {
    "command": "store_memory",
    "session_id": "evening-walk",
    "data": {"type": "idea", "content": "Solar panels on the shed"},
    "sync": True,
}
ALL_AT_ONCE: Json = {
    "session_id": "evening-walk",
    "commands": [
        {"command": "create_session", "data": {"title": "Evening walk"}},
        {"command": "store_memory", "data": {"type": "idea", "content": "Solar panels on the shed"}},
    ],
}


TAGS: dict[Tag, str] = {
    "commands": "All session commands, each at its own URL.",
    "webhooks": "The same commands in an envelope, and webhooks from senders that cannot set headers.",
    "reading": "Reads of stored data, outside the order of commands.",
    "agents": "Claiming tasks and reporting results.",
    "operating": "Keys, deliveries, dead letters and status.",
    "service": "Service information and health, without a key.",
}


def openapi_route(*, public_url: str) -> Route:
    """The route of `/openapi.json`. Both documents are built once, for the first request; that for a GPT contains the
    relay's own URL."""
    documents = Deferred(_build_both)

    async def openapi(request: Request) -> Response:
        client = decode_parameters(request.query_params, DocumentParameters).client
        body, for_gpt = await documents.get()
        if client is None:
            return JsonResponse(body)
        return JsonResponse(for_gpt | {"servers": [{"url": public_url_of(request, public_url=public_url)}]})

    return route("openapi", openapi)


def _build_both() -> tuple[bytes, Json]:
    document = build_document()
    return msgspec.json.encode(document), build_gpt_document(document)


def build_document() -> Json:
    """Build the document with all operations of the public app."""
    parameters = [operation.parameters for operation in OPERATIONS if operation.parameters]
    bodies = [operation.body for operation in OPERATIONS if operation.body]
    schemas = component_schemas([*COMMANDS.values(), Envelope, ErrorBody, WaitParameters, *bodies, *parameters])
    schemas["Envelope"] = envelope_schema(schemas["Envelope"])
    paths: dict[str, Json] = {}

    def add(name: str, described: Json, *, path: str = "") -> None:
        address = ADDRESSES[name]
        operations = paths.setdefault(path or address.template, {})
        operations[address.method.lower()] = described | {"tags": [address.tag]}

    add("webhook", _post_webhook(schemas))
    add("webhook_alias", _post_webhook(schemas) | {"operationId": "webhook_alias"})
    add("hook", _post_hook(schemas))
    for name in COMMANDS:
        add("command", _post_command(name, schemas), path=template_of("command").format(command=name))
    for read in READS:
        add(read.name, _get_read(read, schemas))
    for operation in OPERATIONS:
        add(operation.name, _operation(operation, schemas))
    for definition in parameters:
        schemas.pop(definition.__name__, None)
    schemas.pop(WaitParameters.__name__, None)
    return {
        "openapi": OPENAPI_VERSION,
        "info": {
            "title": "session-relay",
            "version": version(),
            "description": "A durable hub where LLMs, people and agents work on the same session, through webhooks.",
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}, {"bearer": []}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": schemas | answer_schemas(),
            "responses": response_components(),
            "headers": header_components(),
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
        "parameters": [*_parameters("", schemas[WaitParameters.__name__]), _IDEMPOTENCY_KEY],
        "requestBody": _request("Envelope", START, REMEMBER),
        "responses": _COMMAND_RESPONSES,
    }


def _post_hook(schemas: dict[str, Json]) -> Json:
    return {
        "operationId": "hook",
        "summary": "Send any JSON or a form; it is stored as a memory in the token's session.",
        "parameters": [*_parameters(template_of("hook"), schemas[WaitParameters.__name__]), _IDEMPOTENCY_KEY],
        "requestBody": {"required": True, "content": {"application/json": {"schema": {}}}},
        "responses": _COMMAND_RESPONSES,
        "security": [],
    }


def _post_command(name: str, schemas: dict[str, Json]) -> Json:
    definition = COMMANDS[name]
    component = f"{definition.__name__}Request"
    flat = flat_schema(definition, schemas[definition.__name__])
    properties = {field: _described(definition, field, schema) for field, schema in flat["properties"].items()}
    schemas[component] = flat | {"title": component, "properties": properties}
    return {
        "operationId": name,
        "summary": (definition.__doc__ or "").strip(),
        "parameters": [*_parameters("", schemas[WaitParameters.__name__]), _IDEMPOTENCY_KEY],
        "requestBody": _request(component, *([ALL_AT_ONCE] if definition is Batch else []))
        | {"required": bool(schemas[component]["required"])},
        "responses": _COMMAND_RESPONSES,
    }


def _described(definition: type[Command], field: str, schema: Json) -> Json:
    """Add the field's meaning to its schema, and the form of ids and names."""
    forms = {option.get("description") for option in (schema, *schema.get("anyOf", ()))} & {*v.PATTERNS.values()}
    return {**schema, "description": " ".join([describe_field(definition, field), *(f"({form})" for form in forms)])}


def _get_read(read: ReadRoute, schemas: dict[str, Json]) -> Json:
    path = template_of(read.name)
    one_session = "{" in path or read.command.session == "optional"
    return {
        "operationId": read.name,
        "summary": (read.command.__doc__ or "").strip(),
        "parameters": _parameters(path, schemas[read.command.__name__]),
        "responses": {
            "200": answer("The result.", "List" if read.answer == "list" else "Object"),
            **error_responses(KEYED | {422} | ({404} if one_session else frozenset())),
        },
    }


def _operation(operation: Operation, schemas: dict[str, Json]) -> Json:
    schema = schemas[operation.parameters.__name__] if operation.parameters else {}
    success = answer("The result.", operation.answer, *operation.more_types, is_open=operation.is_open)
    return {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": _parameters(operation.path, schema),
        **({"requestBody": _body(operation.body.__name__, schemas)} if operation.body else {}),
        "responses": {
            operation.status: success,
            **error_responses(operation.refusals),
            **({"202": _COMMAND_RESPONSES["202"]} if operation.goes_through_inbox else {}),
            **{
                status: {"description": text} if status == "204" else {**success, "description": text}
                for status, text in operation.others
            },
        },
        **({"security": []} if operation.is_open else {}),
    }


def _parameters(path: str, schema: Json) -> list[Json]:
    """Path parameters, then query parameters. A list is comma-separated, or a repeated parameter."""
    in_path = re.findall(r"{(\w+)}", path)
    known = {
        "session_id": schema_of(v.Id),
        "token": schema_of(str),
        "claim_token": schema_of(str),
        **schema.get("properties", {}),
    }
    names = [*in_path, *(name for name in schema.get("properties", {}) if name not in in_path)]
    described = []
    for name in names:
        parameter = {
            "name": name,
            "in": "path" if name in in_path else "query",
            "required": name in in_path or name in schema["required"],
            "schema": _without_null(known[name]),
        }
        if name in _TEXTS:
            parameter["description"] = _TEXTS[name]
        if not parameter["required"]:
            parameter["allowEmptyValue"] = True  # Empty means absent.
        if known[name].get("type") == "array":
            parameter |= {"style": "form", "explode": False}
        described.append(parameter)
    return described


def _without_null(schema: Json) -> Json:
    """Drop null from a schema: URL parameters cannot be null."""
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
    return {**options[0], **rest} if len(options) == 1 else schema


def _body(component: str, schemas: dict[str, Json]) -> Json:
    """A request body, required if any of its fields is."""
    return _request(component) | {"required": bool(schemas[component]["required"])}


def _request(component: str, *examples: Json) -> Json:
    content: Json = {"schema": {"$ref": COMPONENT.format(name=component)}}
    if examples:
        content["examples"] = {f"example-{number}": {"value": value} for number, value in enumerate(examples, 1)}
    return {"required": True, "content": {"application/json": content}}


_IDEMPOTENCY_KEY: Json = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The delivery id: retries under the same id take effect only once.",
    "schema": schema_of(v.DeliveryId),
}
_TEXTS = {
    "wait": "Seconds to wait: for a command's response (default 10 under /v1/commands, else 0), for new events, or for "
    "a task to finish or ask.",
    "max_characters": "Maximum length of the response; longer texts and lists are truncated, with `truncated` set.",
    "cursor": "The next_cursor of the previous page.",
    "offset": "Where to continue in a long text: the next_offset of the previous response.",
}
_LINKS: Json = {
    "links": {
        "delivery": {
            "operationId": "read_delivery",
            "description": "The status of the delivery.",
            "parameters": {"delivery_id": "$response.body#/delivery_id"},
        }
    }
}
_COMMAND_RESPONSES: Json = {
    "200": answer("The command took effect; this is its response.", "CommandResponse") | _LINKS,
    "202": answer("The command is durably stored and will take effect.", "Receipt") | _LINKS,
    **error_responses(COMMAND),
}

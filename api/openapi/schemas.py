"""JSON Schemas of definitions and responses, as components of the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache, reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import Raw

from models import field_types as v
from models.commands.definitions import COMMANDS, Command
from models.commands.responses import RESPONSE_TYPE
from models.commands.strict_payloads import ALIASES, ENVELOPE_TYPE

COMPONENT = "#/components/schemas/{name}"

PYTHONS_END = r"(?!\n)"
_PRINTABLE = r"\u0000-\u001f\u007f-\u009f\u2028\u2029]"
_ECMASCRIPT = {v.NAME_PATTERN: rf"^[^{_PRINTABLE}*[^\s{_PRINTABLE}[^{_PRINTABLE}*$"}


def schema_of(hint: Any) -> dict[str, Any]:
    """The schema of a type without references to definitions."""
    return _in_ecmascript(msgspec.json.schema(hint))


def component_schemas(definitions: Iterable[type[msgspec.Struct]]) -> dict[str, dict[str, Any]]:
    """The schemas of these definitions and of those they reference, by name."""
    copies = [_with_plain_defaults(definition) for definition in definitions]
    _, components = msgspec.json.schema_components(copies, ref_template=COMPONENT)
    return _in_ecmascript(components)


def flat_schema(definition: type[Command], schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a body of /v1/commands: a command's data, session_id and id in one object."""
    session_id = schema_of(v.Id if definition.session == "required" else v.Id | None)
    session = {} if definition.session == "none" else {"session_id": session_id}
    properties = {**session, **schema["properties"], "id": schema_of(v.DeliveryId | None)}
    required = ["session_id"] if definition.session == "required" else []
    return {**schema, "properties": properties, "required": required + schema["required"]}


def envelope_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a webhook's body, including what is checked only after decoding."""
    names = {"enum": [*COMMANDS, *ALIASES]}
    changes = {"command": names, "type": {"enum": [ENVELOPE_TYPE]}, "session_id": schema_of(v.Id | None)}
    properties = {name: {**inner, **changes.get(name, {})} for name, inner in schema["properties"].items()}
    return {**schema, "properties": properties}


def answer_schemas() -> dict[str, dict[str, Any]]:
    """The schemas of responses, by name."""
    text: dict[str, Any] = {"type": "string"}
    text_or_null: dict[str, Any] = {"type": ["string", "null"]}
    any_object: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": True}
    error = {"$ref": COMPONENT.format(name="ErrorBody")}
    receipt = {
        "status": {"enum": ["accepted", "pending", "ignored"]},
        "delivery_id": text,
        "session_id": text_or_null,
        "command": text,
        "status_url": text,
        "duplicate": {"type": "boolean"},
        "message": text,
        "reason": text,
    }
    response = {
        "type": {"const": RESPONSE_TYPE},
        "command": text,
        "session_id": text_or_null,
        "status": {"enum": ["success", "error"]},
        "message": text,
        "data": any_object,
        "error": error,
        "delivery_id": text,
        "now": text,
        "updates": {"type": "array", "items": any_object},
    }
    delivery = {
        "delivery_id": text,
        "source": text,
        "status": {"enum": get_args(v.DeliveryStatus)},
        "command": text,
        "session_id": text_or_null,
        "accepted_at": text,
        "decided_at": text,
        "result": any_object,
        "error": any_object,
        "reason": text,
        "hint": text,
        "conflicts": {"type": "integer"},
        "last_conflict_at": text,
    }
    key = {
        "key": text,
        "key_id": text,
        "name": text,
        "scopes": {"type": "array", "items": text},
        "sessions": text_or_null,
        "created_at": text,
        "url": text,
    }
    lease = {
        "session_id": text,
        "task_id": text,
        "status": {"enum": get_args(v.TaskStatus)},
        "cancelled": {"type": "boolean"},
        "attempt": {"type": "integer"},
        "lease_expires_at": text_or_null,
    }
    claimed = {
        "claim_token": text,
        "session_id": text,
        "session_title": text,
        "task_id": text,
        "task_type": text,
        "title": text,
        "description": text,
        "priority": {"type": "integer"},
        "input_data": any_object,
        "questions": {"type": "array", "items": any_object},
        "attempt": {"type": "integer"},
        "max_attempts": {"type": "integer"},
        "depends_on": {"type": "array", "items": text},
        "created_by": text,
        **dict.fromkeys(("created_at", "claimed_at", "lease_expires_at"), text),
    }
    listed = {
        "items": {"type": "array", "items": any_object},
        "next_cursor": text_or_null,
        "truncated": {"type": "boolean"},
        "method": {"enum": ["words", "hybrid"]},
        "meaning_ready": {"const": False},
        "not_embedded": {"type": "integer"},
    }
    return {
        "Object": any_object,
        "List": {"type": "object", "properties": listed, "required": ["items", "next_cursor"]},
        "Error": {"type": "object", "properties": {"error": error}, "required": ["error"]},
        "Receipt": {
            "type": "object",
            "properties": receipt,
            "required": [n for n in receipt if n not in ("message", "reason")],
        },
        "CommandResponse": {
            "type": "object",
            "properties": response,
            "required": [name for name in response if name not in ("error", "updates")],
        },
        "Imported": {
            "type": "object",
            "properties": {"session_id": text, "created": {"type": "boolean"}},
            "required": ["session_id", "created"],
        },
        "Lease": {"type": "object", "properties": lease, "required": list(lease)},
        "ClaimedTask": {"type": "object", "properties": claimed, "required": list(claimed)},
        "NewKey": {"type": "object", "properties": key, "required": [name for name in key if name != "url"]},
        "Delivery": {
            "type": "object",
            "properties": delivery,
            "required": ["delivery_id", "source", "status", "command", "session_id", "accepted_at"],
        },
    }


def _in_ecmascript(schema: dict[str, Any]) -> dict[str, Any]:
    """Translate patterns to JSON Schema's dialect, where `$` matches only the end and lookaheads should be avoided."""

    def translate(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return _in_ecmascript(value)
        if isinstance(value, list):
            return [translate("", item) for item in value]
        if name == "pattern":
            return _ECMASCRIPT.get(value, value.removesuffix(PYTHONS_END))
        return value

    return {name: translate(name, value) for name, value in schema.items()}


@cache
def _with_plain_defaults(definition: type[msgspec.Struct]) -> type[msgspec.Struct]:
    """Copy a definition with serializable defaults: msgspec cannot put a Raw default into a schema."""
    fields = []
    for field in msgspec.structs.fields(definition):
        options: dict[str, Any] = {} if field.encode_name == field.name else {"name": field.encode_name}
        if isinstance(field.default, Raw):
            options["default_factory"] = dict
        elif field.default is not msgspec.NODEFAULT:
            options["default"] = field.default
        elif field.default_factory is not msgspec.NODEFAULT:
            options["default_factory"] = field.default_factory
        fields.append((field.name, _with_plain_types(field.type), msgspec.field(**options)))
    config = definition.__struct_config__
    return msgspec.defstruct(
        definition.__name__,
        fields,
        namespace={"__doc__": definition.__doc__},
        kw_only=True,
        forbid_unknown_fields=config.forbid_unknown_fields,
    )


def _with_plain_types(hint: Any) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return _with_plain_defaults(hint)
    if not arguments or origin is Literal:
        return hint
    if origin is Annotated:
        return Annotated[(_with_plain_types(arguments[0]), *arguments[1:])]
    inner = tuple(_with_plain_types(argument) for argument in arguments)
    return reduce(or_, inner) if origin in (Union, UnionType) else origin[inner]

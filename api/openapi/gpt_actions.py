"""The OpenAPI document for the Actions of a custom GPT: a subset of the whole document, within the importer's limits.

Beyond OpenAPI the importer demands at most 30 operations, short descriptions, an absolute server URL, one way to send
the key, and objects with `properties`. Headers, links and null are left out, as it may not support them. Parameters
beside a body are left out, too, since the model sees both as one list of names.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from api.openapi.schemas import COMPONENT
from models import field_types as v
from models.commands.definitions import COMMANDS, Batch

Json = dict[str, Any]

MORE_OPERATIONS = ("read_delivery", "read_agents")
"""Operations beside all commands: the status of a delivery, and agents to delegate to."""
DESCRIPTION_LENGTH = 300
"""Maximum characters of an operation's description."""
ABOUT = (
    "A durable memory shared with other assistants and with agents on computers: sessions with conversations, typed "
    "memories, tasks for agents, and artifacts."
)
ANYTHING: Json = {
    "anyOf": [{"type": "string"}, {"type": "object", "properties": {}, "additionalProperties": True}],
}
"""Stands for any JSON: the importer rejects schemas without a type."""
BATCH_LIMIT = 50
"""Commands per batch, so that their responses stay below the 100,000 characters that a GPT accepts."""
BATCH_SUMMARY = (Batch.__doc__ or "").replace(f"{v.BATCH_LIMIT} commands", f"{BATCH_LIMIT} commands")
_KEPT = ("operationId", "summary")


class DocumentParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Selects the document for a client; by default the whole document."""

    client: Literal["gpt"] | None = None


def build_gpt_document(whole: Json) -> Json:
    """Build the subset of the whole document that a GPT needs. The caller sets `servers`."""
    chosen = {*COMMANDS, *MORE_OPERATIONS}
    paths: Json = {}
    for path, operations in whole["paths"].items():
        for method, operation in operations.items():
            if operation["operationId"] in chosen:
                paths.setdefault(path, {})[method] = _operation(operation)
    schemas = {name: _plain(schema) for name, schema in whole["components"]["schemas"].items()}
    schemas["BatchRequest"]["properties"]["commands"] |= {
        "maxItems": BATCH_LIMIT,
        "description": f"At most {BATCH_LIMIT} commands, each with its name and data. Read outside of batches.",
    }
    schemas["BatchRequest"]["description"] = BATCH_SUMMARY
    paths["/v1/commands/batch"]["post"]["summary"] = BATCH_SUMMARY
    schemas["BatchItem"]["properties"]["command"] |= {
        "enum": [name for name, definition in COMMANDS.items() if definition.in_batch]
    }
    return {
        "openapi": whole["openapi"],
        "info": {**whole["info"], "description": ABOUT},
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": _needed(schemas, paths),
            "securitySchemes": {"bearer": whole["components"]["securitySchemes"]["bearer"]},
        },
    }


def is_consequential(name: str) -> bool:
    """Return whether the user must confirm each call: commands that need more than the scope `write`, because they
    delete or start work on somebody's machine, and batches, which may contain such commands."""
    definition = COMMANDS.get(name)
    return definition is not None and (definition is Batch or definition.scope not in ("read", "write"))


def _operation(operation: Json) -> Json:
    body = operation.get("requestBody")
    responses = {
        status: _answer(operation["responses"][status]["content"]["application/json"]["schema"])
        for status in ("200", "202")
        if status in operation["responses"]
    }
    return {
        **{name: operation[name] for name in _KEPT},
        "x-openai-isConsequential": is_consequential(operation["operationId"]),
        "parameters": [] if body else [_parameter(parameter) for parameter in operation["parameters"]],
        **({"requestBody": _plain(body)} if body else {}),
        "responses": {**responses, "default": _answer({"$ref": COMPONENT.format(name="Error")}, "An error.")},
    }


def _answer(schema: Json, description: str = "The result.") -> Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _parameter(parameter: Json) -> Json:
    return {name: _plain(value) for name, value in parameter.items() if name != "allowEmptyValue"}


def _plain(schema: Any) -> Any:
    """Rewrite a schema without null, with properties for each object and a type for everything.

    Nullable response fields are left out of the schema; responses contain them all the same.
    """
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    options = [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1:
        schema = {**options[0], **{name: value for name, value in schema.items() if name != "anyOf"}}
    plain: Json = {}
    for name, value in schema.items():
        if name == "properties":
            plain[name] = {inner: _typed(_plain(part)) for inner, part in value.items() if not _may_be_null(part)}
        elif name == "required" and isinstance(value, list):
            plain[name] = [inner for inner in value if not _may_be_null(schema["properties"][inner])]
        elif name == "items":
            plain[name] = _typed(_plain(value))
        elif name != "default" or value:
            plain[name] = _plain(value)
    if plain.get("type") == "object" and "properties" not in plain:
        plain |= {"properties": {}, "additionalProperties": True}
    return plain


def _may_be_null(schema: Json) -> bool:
    return isinstance(schema.get("type"), list)


def _typed(schema: Json) -> Json:
    if "enum" in schema or "const" in schema:
        return {"type": "string", **schema}
    return schema if schema.keys() & {"type", "anyOf", "$ref"} else {**ANYTHING, **schema}


def _needed(schemas: Json, paths: Json) -> Json:
    """The schemas that the paths reference, directly or indirectly."""
    found: Json = {}
    pending = list(_references(paths))
    while pending:
        name = pending.pop()
        if name not in found:
            found[name] = schemas[name]
            pending += _references(schemas[name])
    return dict(sorted(found.items()))


def _references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"].removeprefix(COMPONENT.format(name=""))] if isinstance(value.get("$ref"), str) else []
        return own + [name for inner in value.values() for name in _references(inner)]
    return [name for inner in value for name in _references(inner)] if isinstance(value, list) else []

"""Loose spellings, by the OpenAPI document alone: the meaning of a body that its schema refuses."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import jsonschema_rs

from api.openapi.document import build_document

Json = dict[str, Any]


def is_loosely_valid(body: Any, schema: Json) -> bool:
    """Return whether a body is valid by its schema once it is spelled strictly."""
    complete = {**schema, "components": _document()["components"]}
    return bool(jsonschema_rs.validator_for(complete).is_valid(spell_strictly(body, schema)))


def spell_strictly(value: Any, schema: Json) -> Any:
    """Return the value without the loose spellings that the guide allows."""
    schema = _resolve(schema)
    kind = schema.get("type")
    if isinstance(value, str):
        value = _read(value, kind, schema)
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    if kind == "array" and isinstance(value, list):
        return [spell_strictly(item, schema.get("items", {})) for item in value]
    properties = schema.get("properties", {})
    if isinstance(value, dict) and properties:
        return {
            name: spell_strictly(item, properties.get(name, {}))
            for name, item in value.items()
            if item is not None or not _resolve(properties.get(name, {})).keys() & {"type", "enum"}
        }
    return value


def _read(text: str, kind: object, schema: Json) -> Any:
    if kind in ("object", "array") and text.strip().startswith("{" if kind == "object" else "["):
        try:
            return json.loads(text)
        except ValueError:
            return text
    if kind == "array":
        of_text = _resolve(schema.get("items", {})).get("type") == "string" or "enum" in _resolve(schema["items"])
        return [part.strip() for part in text.split(",") if part.strip()] if of_text else [text]
    if kind == "integer" and re.fullmatch(r"\s*-?(0|[1-9][0-9]*)(\.0+)?\s*", text):
        return int(float(text))
    if kind == "number" and re.fullmatch(r"\s*-?(0|[1-9][0-9]*)(\.[0-9]+)?\s*", text):
        return float(text)
    if kind == "boolean" and text.strip().lower() in ("true", "false"):
        return text.strip().lower() == "true"
    return text


def _resolve(schema: Json) -> Json:
    """Return the schema without references, and without the alternative null."""
    if reference := schema.get("$ref"):
        return _resolve(_document()["components"]["schemas"][reference.rpartition("/")[2]])
    if options := [option for option in schema.get("anyOf", ()) if option != {"type": "null"}]:
        return _resolve(options[0])
    if isinstance(schema.get("type"), list):
        return {**schema, "type": next(kind for kind in schema["type"] if kind != "null")}
    return schema


@cache
def _document() -> Json:
    return build_document()

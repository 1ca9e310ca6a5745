"""Decodes bodies leniently: JSON as text, null for omitted fields, numbers as text, comma-separated text for a list.

Strict bodies are decoded at once; only rejected ones are decoded again, in linear time. All spellings of a command have
the same result and hash. Bodies that are still invalid raise one error that lists all problems.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import Raw

from models.commands.definitions import JsonObject, JsonValue
from models.commands.responses import shorten
from models.decoding.strict import decode_json, explain, missing_field, unknown_field
from models.errors import Invalid, Rejected

T = TypeVar("T")

MAX_PROBLEMS = 10
"""Problems listed per request: as many as a person fixes at once."""
NULL = Raw(b"null")

_INTEGER = re.compile(r"(-?[0-9]{1,19})(?:\.0{1,20})?")
_NUMBER = re.compile(r"-?[0-9]{1,19}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,3})?")


class _Spec(NamedTuple):
    """The type of a field, as far as it has lenient spellings."""

    kind: Literal["struct", "list", "object", "any", "integer", "number", "boolean", "text"]
    hint: Any
    """The type without null, and without annotations unless it is free-form JSON."""


def decode_leniently(body: bytes | Raw, shape: type[T], *, prefix: str = "", beside: Sequence[str] = ()) -> T:
    """Decode into `shape`. Raises Invalid with the path of the first wrong field, after `prefix`, and all `problems`.

    Fields in `beside` also count as known; the caller has already removed them from the body.
    """
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.ValidationError, Invalid):
        relaxed = _relax(Raw(bytes(body)), _spec_of(shape))
    try:
        return msgspec.json.decode(relaxed, type=shape)
    except (msgspec.ValidationError, Invalid):
        faults = _find_faults(relaxed, shape, prefix.rstrip("."), beside=beside)
    raise combine(faults)


def read_object(raw: bytes | Raw) -> Raw | None:
    """Return the JSON object, which may be encoded as text; None for other values."""
    relaxed = _relax(Raw(bytes(raw)), _Spec("object", None))
    return relaxed if _opens(relaxed, b"{") else None


def combine(faults: Sequence[Invalid]) -> Invalid:
    """Combine errors into the first one, which then lists up to MAX_PROBLEMS problems."""
    first = faults[0]
    problems = [problem for fault in faults for problem in fault.problems or [fault.problem()]][:MAX_PROBLEMS]
    if len(problems) > 1:
        others = ", ".join(repr(str(problem.get("field", ""))) for problem in problems[1:])
        first.message = shorten(f"{problems[0]['message']} Also wrong: {others}.")
        first.problems = problems
    return first


def _relax(raw: Raw, spec: _Spec) -> Raw:
    """Convert a lenient spelling of the expected type to the strict form; return other values unchanged."""
    match spec.kind:
        case "struct":
            return _relax_fields(_object_in(raw), spec.hint)
        case "object":
            return _object_in(raw)
        case "list":
            return _relax_list(raw, spec.hint)
        case "integer":
            found = _INTEGER.fullmatch(_bare(raw))
            return Raw(found[1].encode()) if found and _is_json(found[1]) else raw
        case "number":
            text = _bare(raw)
            return Raw(text.encode()) if _NUMBER.fullmatch(text) and _is_json(text) else raw
        case "boolean":
            text = _bare(raw).lower()
            return Raw(text.encode()) if text in ("true", "false") else raw
    return raw


def _relax_fields(raw: Raw, shape: type[msgspec.Struct]) -> Raw:
    if not _opens(raw, b"{"):
        return raw
    specs = _specs_of(shape)
    fields: dict[str, Raw] = {}
    for name, value in msgspec.json.decode(raw, type=dict[str, Raw]).items():
        spec = specs.get(name)
        if spec is None:
            fields[name] = value
        elif value != NULL or spec.kind == "any":
            fields[name] = _relax(value, spec)
    return Raw(msgspec.json.encode(fields))


def _relax_list(raw: Raw, element: Any) -> Raw:
    spec = _spec_of(element)
    text = _text_in(raw)
    if text is not None:
        if found := _json_in(text, "["):
            raw = found
        elif spec.kind == "text":
            return Raw(msgspec.json.encode([part.strip() for part in text.split(",") if part.strip()]))
        elif element == JsonValue and text.strip():
            return Raw(b"[" + bytes(raw) + b"]")
    if spec.kind not in ("struct", "object") or not _opens(raw, b"["):
        return raw
    return Raw(msgspec.json.encode([_relax(item, spec) for item in msgspec.json.decode(raw, type=list[Raw])]))


def _object_in(raw: Raw) -> Raw:
    text = _text_in(raw)
    return raw if text is None else _json_in(text, "{") or raw


def _json_in(text: str, opening: str) -> Raw | None:
    """Return the JSON in a text if it starts with `opening` and is valid."""
    body = text.strip()
    if not body.startswith(opening):
        return None
    try:
        decode_json(body.encode())
    except Rejected:
        return None
    return Raw(body.encode())


def _text_in(raw: Raw) -> str | None:
    return msgspec.json.decode(raw, type=str) if _opens(raw, b'"') else None


def _bare(raw: Raw) -> str:
    """Return a number or word without its quotation marks; empty if it is too long to be one."""
    return (_text_in(raw) or bytes(raw).decode()).strip() if len(bytes(raw)) < 64 else ""


def _is_json(text: str) -> bool:
    """Return whether a number is valid JSON, which does not allow leading zeros."""
    digits = text.lstrip("-")
    return digits[:1] != "0" or digits[1:2] in ("", ".")


def _opens(raw: Raw, opening: bytes) -> bool:
    return bytes(raw).lstrip().startswith(opening)


@cache
def _specs_of(shape: type[msgspec.Struct]) -> dict[str, _Spec]:
    return {field.encode_name: _spec_of(field.type) for field in msgspec.structs.fields(shape)}


def _spec_of(hint: Any) -> _Spec:
    if hint == JsonObject:
        return _Spec("object", hint)
    hint = plain_type(hint)
    if get_origin(hint) is list:
        return _Spec("list", get_args(hint)[0])
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return _Spec("struct", hint)
    if hint is Raw:
        return _Spec("any", hint)
    return _Spec({int: "integer", float: "number", bool: "boolean"}.get(hint, "text"), hint)  # type: ignore[arg-type]


def plain_type(hint: Any) -> Any:
    """Return the type without annotations and null."""
    if get_origin(hint) is Annotated:
        return plain_type(get_args(hint)[0])
    if get_origin(hint) in (Union, UnionType):
        return next(plain_type(part) for part in get_args(hint) if part is not type(None))
    return hint


def _find_faults(raw: Raw, hint: Any, path: str, *, beside: Sequence[str] = ()) -> list[Invalid]:
    """Return the errors of a value, in the order of its JSON."""
    spec = _spec_of(hint)
    if spec.kind == "struct" and _opens(raw, b"{"):
        return _find_faults_of_fields(raw, spec.hint, f"{path}." if path else "", beside)
    faults: list[Invalid] = []
    if spec.kind == "list" and _spec_of(spec.hint).kind == "struct" and _opens(raw, b"["):
        for number, item in enumerate(msgspec.json.decode(raw, type=list[Raw])):
            faults += _find_faults(item, spec.hint, f"{path}[{number}]")
            if len(faults) >= MAX_PROBLEMS:
                return faults
    if not faults and (fault := _fault_of(raw, hint, path)):
        faults.append(fault)
    return faults


def _fault_of(raw: Raw, hint: Any, path: str) -> Invalid | None:
    if hint == JsonObject and not _opens(raw, b"{"):
        message = f"The field {path!r} is not valid: expected object."
        return Invalid(message, code="invalid_field", field=path, expected="a JSON object")
    try:
        msgspec.json.decode(raw, type=hint)
    except msgspec.ValidationError as error:
        return explain(str(error), hint, path, body=bytes(raw))
    except Invalid as error:
        error.field = f"{path}.{error.field}" if error.field else path
        return error
    return None


def _find_faults_of_fields(
    raw: Raw, shape: type[msgspec.Struct], prefix: str, beside: Sequence[str] = ()
) -> list[Invalid]:
    given = msgspec.json.decode(raw, type=dict[str, Raw])
    fields = {field.encode_name: field for field in msgspec.structs.fields(shape)}
    missing = [name for name, field in fields.items() if field.required and name not in given]
    faults: list[Invalid] = []
    values: dict[str, Any] = {field.name: None for field in fields.values() if field.required}
    for name, value in given.items():
        if len(faults) >= MAX_PROBLEMS:
            return faults
        if name not in fields:
            known = [*beside, *fields]
            faults.append(unknown_field(name, known, shape=shape, prefix=prefix, missing=missing))
        elif found := _find_faults(value, fields[name].type, f"{prefix}{name}"):
            faults += found
        else:
            values[fields[name].name] = msgspec.json.decode(value, type=fields[name].type)
    faults += [missing_field(name, prefix=prefix) for name in missing]
    return faults + _find_faults_of_values(shape, values, prefix)


def _find_faults_of_values(shape: type[msgspec.Struct], values: dict[str, Any], prefix: str) -> list[Invalid]:
    """Return the errors that the definition raises for values of the right types. Missing values count as null."""
    faults: list[Invalid] = []
    while len(faults) < MAX_PROBLEMS:
        try:
            shape(**values)
        except Invalid as error:
            name = error.field or ""
            error.field = f"{prefix}{name}" if name else prefix.rstrip(".") or None
            faults.append(error)
            if values.pop(name, None) is None:
                break
        else:
            break
    return faults

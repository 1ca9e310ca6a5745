"""Rows as parameters of a statement: a column is one array, or one value if all rows have the same.

Postgres reads them in less time than rows of JSON objects, of each of which it makes a hash table. An array is
`msgspec`'s JSON with other brackets, so that Python does not touch single values.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import ARRAY, JSON, Table, Text
from sqlalchemy.dialects.postgresql import dialect

from models.tables import METADATA
from sessions.commands.store import StatementFailed

_POSTGRES = dialect()  # type: ignore[no-untyped-call]
_ESCAPE = re.compile(rb"\\(?:u00([0-9a-f]{2})|([bfnrt]))")
_CONTROLS = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}


class Rows(NamedTuple):
    """Rows for `INSERT INTO … (names) SELECT values`, with the parameters of the values."""

    names: tuple[str, ...]
    """Quoted."""
    values: tuple[str, ...]
    parameters: tuple[Any, ...]


class _Column(NamedTuple):
    """A column of a table, and the field of a struct with its values."""

    name: str
    field: str
    type: str
    is_json: bool
    is_list: bool
    is_nullable: bool


def rows_of(table: str, structs: Sequence[msgspec.Struct]) -> Rows:
    """Return structs of one type as rows of a table, in this order: their fields that are columns. Raises
    StatementFailed for a text that Postgres cannot store."""
    columns = _columns(table, type(structs[0]))
    # One column is an array in any case, so that there are as many rows as structs.
    selected = [_select(column, structs, is_array=n == 0 and len(structs) > 1) for n, column in enumerate(columns)]
    return Rows(
        tuple(column.name for column in columns),
        tuple(value for value, _ in selected),
        tuple(parameter for _, parameter in selected),
    )


def texts_of(values: Sequence[Any]) -> str:
    """Return texts, numbers, times or Nones as the text of an array. Raises StatementFailed for a NUL."""
    encoded = msgspec.json.encode(values)
    if b"\\" in encoded:
        encoded = _ESCAPE.sub(_control, encoded) if b"\\\\" not in encoded else _unescape(encoded)
    return f"{{{encoded[1:-1].decode()}}}"


def quote_name(name: str) -> str:
    """Return a name as SQL."""
    quoted: str = _POSTGRES.identifier_preparer.quote(name)
    return quoted


def _select(column: _Column, structs: Sequence[msgspec.Struct], *, is_array: bool) -> tuple[str, Any]:
    """Return the expression of a column's values, with its parameter."""
    values = list(map(attrgetter(column.field), structs))
    if column.is_json:
        values = [None if value is None else bytes(value) for value in values]
        if column.is_nullable:
            values = [None if value == b"null" else value for value in values]
    first = values[0]
    if not is_array and values.count(first) == len(values):
        return f"CAST(%s AS {column.type})", _scalar(first)
    if column.is_list:  # As texts, because an array of arrays would be one, and all of them as long.
        return f"CAST(unnest(CAST(%s AS TEXT[])) AS {column.type})", texts_of([texts_of(value) for value in values])
    if not column.is_json:
        return f"unnest(CAST(%s AS {column.type}[]))", texts_of(values)
    if None in values:
        return f"unnest(CAST(%s AS {column.type}[]))", texts_of([value and value.decode() for value in values])
    # Their text stays exactly as sent.
    return "json_array_elements(CAST(%s AS JSON))", f"[{b','.join(values).decode()}]"


def _scalar(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if (isinstance(value, str) and "\0" in value) or (isinstance(value, list) and any("\0" in text for text in value)):
        raise _nul()
    return value


def _unescape(encoded: bytes) -> bytes:
    """Replace JSON's escapes of control characters, unless their backslash is itself escaped."""
    return b"\\\\".join(_ESCAPE.sub(_control, part) for part in encoded.split(b"\\\\"))


def _control(match: re.Match[bytes]) -> bytes:
    code, letter = match.groups()
    if code == b"00":
        raise _nul()
    return _CONTROLS[letter] if letter else bytes([int(code, 16)])


def _nul() -> StatementFailed:
    return StatementFailed("A text with the character NUL cannot be stored.", bad_value=True)


@cache
def _columns(table: str, kind: type[msgspec.Struct]) -> list[_Column]:
    known: Table[Any] = METADATA.tables[table]
    return [
        _Column(
            name=quote_name(name),
            field=field,
            type=_type_of(known.c[name].type),
            is_json=isinstance(known.c[name].type, JSON),
            is_list=isinstance(known.c[name].type, ARRAY),
            is_nullable=bool(known.c[name].nullable),
        )
        for field, name in zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True)
        if name in known.c
    ]


def _type_of(kind: Any) -> str:
    """Return the name of a type, without a collation."""
    compiled: str = "TEXT" if isinstance(kind, Text) else kind.compile(_POSTGRES)
    return compiled

"""Formats output for programs as TSV with a header line or as JSON: never truncated, and safe on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from cli.output.escaping import field, json_text
from cli.output.table_columns import OutputSchema, at_path

Pages = Iterable[list[dict[str, Any]]]


def tsv(pages: Pages, shape: OutputSchema) -> Iterator[str]:
    """Yield the header line, then the lines of each page. Missing values are empty; lists and objects are JSON."""
    yield "\t".join(column.path for column in shape.columns) + "\n"
    for page in pages:
        lines = ("\t".join(_cell(at_path(item, column.path)) for column in shape.columns) for item in page)
        yield "".join(f"{line}\n" for line in lines)


def json_array(pages: Pages, shape: OutputSchema, fields: tuple[str, ...]) -> Iterator[str]:
    """Yield one array, page by page, with one item per line."""
    yield "["
    separator = "\n"
    for page in pages:
        parts: list[str] = []
        for item in page:
            parts.append(separator + json_line(chosen(item, shape, fields)))
            separator = ",\n"
        yield "".join(parts)
    yield "\n]\n"


def chosen(item: dict[str, Any], shape: OutputSchema, fields: tuple[str, ...]) -> dict[str, Any]:
    """Select fields of an item, null where missing. Without fields, returns the item unchanged."""
    return {name: shape.pick(item, name) for name in fields} if fields else item


def json_line(value: Any) -> str:
    """Encode a value as JSON on one line."""
    return json_text(msgspec.json.encode(value).decode())


def json_block(value: Any) -> str:
    """Encode a value as indented JSON."""
    return json_text(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return field(value)
    return json_line(value)

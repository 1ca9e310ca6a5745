"""Output for programs: TSV with a heading line, and JSON, both complete, and both harmless on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from cli.output.escaping import field, json_text
from cli.output.output_schemas import OutputSchema, at_path

Pages = Iterable[list[dict[str, Any]]]


def tsv(pages: Pages, shape: OutputSchema) -> Iterator[str]:
    """The heading, then for each page its lines. Absent values are empty; lists and objects are JSON."""
    yield "\t".join(column.path for column in shape.columns) + "\n"
    for page in pages:
        lines = ("\t".join(_cell(at_path(item, column.path)) for column in shape.columns) for item in page)
        yield "".join(f"{line}\n" for line in lines)


def json_array(pages: Pages, shape: OutputSchema, fields: tuple[str, ...]) -> Iterator[str]:
    """One array, an item to a line, page by page as they come."""
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
    """The fields of an item that were asked for, null where it has none; without any, the item as it is."""
    return {name: shape.pick(item, name) for name in fields} if fields else item


def json_line(value: Any) -> str:
    """JSON on one line."""
    return json_text(msgspec.json.encode(value).decode())


def json_block(value: Any) -> str:
    """JSON as people read it."""
    return json_text(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return field(value)
    return json_line(value)

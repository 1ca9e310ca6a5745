"""Parts of the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Return all operations, path by path."""
    for path in document["paths"].values():
        yield from path.values()

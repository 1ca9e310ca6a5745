"""The OpenAPI document, taken apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def operations(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All operations, path by path."""
    for path in document["paths"].values():
        yield from path.values()

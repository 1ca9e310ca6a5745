"""Request headers, indexed once by name instead of searched for each lookup."""

from __future__ import annotations

from collections.abc import KeysView
from typing import Any

from starlette.datastructures import Headers


class IndexedHeaders(Headers):
    """Starlette's headers, with the same answers. The server has lowercased the names, as ASGI requires."""

    def __init__(self, raw: list[tuple[bytes, bytes]]) -> None:
        self._list = raw
        # Of a name that is repeated, the first value counts.
        self._first = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(raw)}

    def keys(self) -> KeysView[str]:  # type: ignore[override]
        """The names, each once, without a copy for each look at them."""
        return self._first.keys()

    def getlist(self, key: str) -> list[str]:
        if len(self._first) < len(self._list):
            return super().getlist(key)
        value = self._first.get(key.lower())
        return [] if value is None else [value]

    def get(self, key: str, default: Any = None) -> Any:
        return self._first.get(key.lower(), default)

    def __getitem__(self, key: str) -> str:
        return self._first[key.lower()]

    def __contains__(self, key: Any) -> bool:
        return key.lower() in self._first

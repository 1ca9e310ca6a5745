"""Lists that only a relay has, page by page."""

from __future__ import annotations

from typing import Any

from agent.http.client import Client
from cli.backends.pages import Fetch
from sessions.reads.results import Page


def fetch_page(client: Client, path: str, wanted: dict[str, Any]) -> Fetch:
    """What gives a page of the list at an address."""

    def fetch(size: int, cursor: str | None) -> Page:
        answer = client.get(path, {**wanted, "limit": size, "cursor": cursor})
        return Page(items=answer["items"], next_cursor=answer.get("next_cursor"))

    return fetch

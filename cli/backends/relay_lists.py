"""Fetches pages of relay-only lists."""

from __future__ import annotations

from typing import Any

from agent.http.client import Client
from cli.backends.pages import Fetch
from models.routes import path_to
from sessions.reads.results import Page


def fetch_page(client: Client, address: str, wanted: dict[str, Any]) -> Fetch:
    """Return a function that fetches a page of the list at the address of this name."""
    path = path_to(address)

    def fetch(size: int, cursor: str | None) -> Page:
        answer = client.get(path, {**wanted, "limit": size, "cursor": cursor})
        return Page(items=answer["items"], next_cursor=answer.get("next_cursor"))

    return fetch

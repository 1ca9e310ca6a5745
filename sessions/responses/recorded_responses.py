"""Reduces responses to their records: the effects of a command, and no content that was read, which may be deleted
later. Pure."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from models.commands.definitions import COMMANDS

NOT_RECORDED = "The read was executed; its result is not recorded. To read again, send it under another id."
FIRST_ERROR = 400


def recorded(response: Raw, *, command: str, http_status: int) -> Raw | None:
    """The response to a command as its delivery keeps it; None for a successful read."""
    is_refused = http_status >= FIRST_ERROR
    if not is_refused and command != "batch":
        return None if _is_read(command) else response
    content = _without_suggestion(msgspec.json.decode(response))
    data = content.get("data")
    if command == "batch" and isinstance(data, dict):
        data = data | {"results": [_of_item(item) for item in data["results"]]} if "results" in data else data
        data = data | {"item": _of_item(data["item"])} if "item" in data else data
        content["data"] = data
    return Raw(msgspec.json.encode(content))


def _of_item(item: dict[str, Any]) -> dict[str, Any]:
    if item["status"] == "success" and _is_read(item["command"]):
        return {"command": item["command"], "status": "success", "message": NOT_RECORDED}
    return _without_suggestion(item)


def _without_suggestion(part: dict[str, Any]) -> dict[str, Any]:
    """The part without suggestions of similar ids."""
    error = part.get("error")
    if not error or not error["code"].endswith("_not_found") or not error.get("hint", "").startswith("Did you mean"):
        return part
    return part | {"error": {name: value for name, value in error.items() if name != "hint"}}


def _is_read(command: str) -> bool:
    return command in COMMANDS and COMMANDS[command].is_read

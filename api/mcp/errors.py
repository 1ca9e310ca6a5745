"""Errors in words that a model can act on, and in the protocol's form. Needs no SDK: requests without a key get them,
too."""

from __future__ import annotations

from typing import Any

import msgspec

from api.mcp.command_tools import COMMAND_TOOLS
from models.commands.interface_names import to_tools
from models.errors import Rejected, RelayError

INVALID_REQUEST = -32_600
INTERNAL_ERROR = -32_603
"""Error codes of JSON-RPC."""

Json = dict[str, Any]


def describe(error: RelayError) -> str:
    """Describe an error with all its problems in one paragraph, with the names of the tools."""
    parts = [part for problem in error.problems or [error.problem()] for part in _describe_problem(problem)]
    if error.data:
        parts.append(msgspec.json.encode(error.data).decode())
    parts.append("Retrying the same call later may succeed." if error.retryable else f"({error.code})")
    return " ".join(parts)


def _describe_problem(problem: Json) -> list[str]:
    parts = [problem["message"]]
    if "field" in problem:
        parts.append(f"Field: {problem['field']}.")
    if "expected" in problem:
        parts.append(f"Expected: {problem['expected']}.")
    if "hint" in problem:
        parts.append(to_tools(problem["hint"], COMMAND_TOOLS))
    return parts


def protocol_fields(error: RelayError) -> Json:
    """Return the fields of a protocol error, for requests other than tool calls."""
    code = INVALID_REQUEST if isinstance(error, Rejected) else INTERNAL_ERROR
    return {"code": code, "message": describe(error), "data": error.body()}

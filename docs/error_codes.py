"""Finds the product's error codes in its source, with the statuses of each and the commands that can return it.

`error_texts` has their causes and remedies.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

from models import errors
from models.commands.definitions import COMMANDS
from models.field_types import SessionStatus

ROOT = Path(__file__).parent.parent
SERVED = ("models", "sessions", "relay", "api", "worker")
"""Rooms whose errors are returned over HTTP."""
TOOLS = ("agent", "cli", "local", "sessions/files", "sessions/postgres/backend.py")
"""Rooms that run on a user's machine, and the stores that only they use."""

RULES = {"conversation_chunk": "append_chunk"}
"""Rules whose names differ from their commands."""
NEVER = {"pause_session": {"session_paused"}, "cancel_task": {"session_paused"}}
"""Codes that a called function can raise, but never for these commands."""
KINDS = ("session", "memory", "task", "artifact")
"""Values of `{kind}` in the codes of missing items."""


class Found(NamedTuple):
    """An error as the source raises it."""

    code: str
    status: int
    retryable: bool


@cache
def served_codes() -> dict[str, list[Found]]:
    """Return all codes of errors over HTTP, with the statuses of each."""
    found = {error for room in SERVED for error in _errors_in(room)}
    # Invalid settings end a process before it serves requests.
    codes = {error.code for error in found} - {errors.SettingsError.code}
    return {code: sorted(error for error in found if error.code == code) for code in codes}


@cache
def tool_codes() -> set[str]:
    """Return the codes that only session-cli, agents and the local stack show."""
    found = {error.code for place in TOOLS for error in _errors_in(place)}
    return (found | {errors.SettingsError.code}) - served_codes().keys()


@cache
def codes_of(command: str) -> list[str]:
    """Return the codes specific to a command, sorted by name."""
    definition = COMMANDS[command]
    found: set[str] = set()
    if definition.is_read:
        found |= {"session_not_found"} if definition.session != "none" else set()
        found |= _missing_in(command)
    elif command != "batch":
        found |= _reachable(RULES.get(command, command))
    return sorted(found - NEVER.get(command, set()))


def _paths(place: str) -> list[Path]:
    path = ROOT / place
    if path.is_file():
        return [path]
    skipped = [ROOT / tool for tool in TOOLS if tool.startswith(f"{place}/")]
    return [
        module
        for module in sorted(path.rglob("*.py"))
        if not any(module == tool or tool in module.parents for tool in skipped)
    ]


@cache
def _classes() -> dict[str, Found]:
    """Return all error classes by name."""
    known: dict[str, Found] = {"RelayError": Found("internal", 500, False)}
    definitions = [node for place in (*SERVED, *TOOLS) for path in _paths(place) for node in _nodes(path)]
    classes = [node for node in definitions if isinstance(node, ast.ClassDef)]
    for _ in range(4):  # The greatest depth of the hierarchy.
        for node in classes:
            bases = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id in known]
            if bases:
                own: dict[str, Any] = {
                    target.id: value.value
                    for statement in node.body
                    if isinstance(statement, ast.Assign) and isinstance(value := statement.value, ast.Constant)
                    for target in statement.targets
                    if isinstance(target, ast.Name)
                }
                known[node.name] = known[bases[0]]._replace(
                    **{name: own[name] for name in ("code", "status", "retryable") if name in own}
                )
    return known


def _errors_in(place: str) -> Iterator[Found]:
    """Yield the errors that a room or module creates."""
    for path in _paths(place):
        for node in _nodes(path):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _classes():
                error = _classes()[node.func.id]
                for code in _codes_given(node) or [error.code]:
                    yield error._replace(code=code)
            elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Name) and node.exc.id in _classes():
                yield _classes()[node.exc.id]
            elif isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if isinstance(key, ast.Constant) and key.value == "code" and place in TOOLS:
                        yield from (Found(code, 0, False) for code in _texts(value))


def _codes_given(call: ast.Call) -> list[str]:
    return [code for keyword in call.keywords if keyword.arg == "code" for code in _texts(keyword.value)]


def _texts(node: ast.expr) -> list[str]:
    """Return the possible values of an expression: a literal, a condition's branches, or an f-string's expansions."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value] if node.value else []
    if isinstance(node, ast.IfExp):
        return _texts(node.body) + _texts(node.orelse)
    if isinstance(node, ast.JoinedStr):
        text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
        words = KINDS if text.startswith("{}") else [word for word in get_args(SessionStatus) if word != "active"]
        return [text.replace("{}", word) for word in words]
    return []


@cache
def _functions() -> dict[str, ast.FunctionDef]:
    trees = [_tree(path) for path in _paths("sessions/rules")]
    return {node.name: node for tree in trees for node in tree.body if isinstance(node, ast.FunctionDef)}


def _reachable(function: str) -> set[str]:
    """Return the codes that a rule and its callees may raise."""
    codes: set[str] = set()
    seen: set[str] = set()
    waiting = [function]
    while waiting:
        name = waiting.pop()
        if name in seen or name not in _functions():
            continue
        seen.add(name)
        for node in ast.walk(_functions()[name]):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                waiting.append(node.func.id)
                if node.func.id in _classes():
                    codes.update(_codes_given(node))
    return codes


def _missing_in(command: str) -> set[str]:
    """Return the not-found codes of a read."""
    found: set[str] = set()
    for path in _paths("sessions/postgres"):
        for function in _tree(path).body:
            if isinstance(function, ast.FunctionDef) and function.name == command:
                calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
                missing = [call for call in calls if getattr(call.func, "id", "") == "missing_in"]
                found |= {
                    f"{call.args[2].value!s}_not_found" for call in missing if isinstance(call.args[2], ast.Constant)
                }
    return found


@cache
def _nodes(path: Path) -> list[ast.AST]:
    """Return the parts of a module that can name an error."""
    kinds = (ast.ClassDef, ast.Call, ast.Raise, ast.Dict)
    return [node for node in ast.walk(_tree(path)) if isinstance(node, kinds)]


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))

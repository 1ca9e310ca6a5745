"""Hints in the terms of the interface in use."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.mcp.command_tools import COMMAND_TOOLS
from cli.main import SECTIONS
from models.commands.definitions import COMMANDS
from models.commands.interface_names import CLI_COMMANDS, to_cli, to_routes, to_tools
from relay.auth.authentication import _HOW_TO_SEND_A_KEY
from tests.support.project import ROOT

HINT = "Create it with create_session; list_sessions shows existing sessions."


@pytest.mark.parametrize(
    ("hint", "tools", "routes", "cli"),
    [
        (
            HINT,
            "Create it with create_session; list_sessions shows existing sessions.",
            "Create it with POST /v1/commands/create_session; GET /v1/sessions shows existing sessions.",
            "Create it with session-cli create; session-cli list shows existing sessions.",
        ),
        (
            "Send resume_session first.",
            "Call send_command resume_session first.",
            None,
            "Run session-cli resume first.",
        ),
        ("Did you mean 'list_tasks'?", "Did you mean 'list_tasks'?", "Did you mean 'list_tasks'?", None),
        ("GET /v1/deliveries/d1 tells.", None, "GET /v1/deliveries/d1 tells.", "session-cli deliveries d1 tells."),
        ("That POST /v1/tasks/claim gave.", "That claim_task gave.", None, None),
        ("Put what you search into q.", "Put what you search into q.", "Put what you search into q.", None),
    ],
)
def test_command_names_are_translated_for_the_interface(
    hint: str, tools: str | None, routes: str | None, cli: str | None
) -> None:
    for expected, told in (
        (tools, to_tools(hint, COMMAND_TOOLS)),
        (routes, to_routes(hint)),
        (cli, to_cli(hint)),
    ):
        assert expected is None or told == expected


def test_a_hint_is_translated_only_once() -> None:
    for translate in (to_routes, lambda hint: to_tools(hint, COMMAND_TOOLS)):
        assert translate(translate(HINT)) == translate(HINT)


def test_session_cli_shows_the_same_hint_from_each_backend() -> None:
    assert to_cli(to_routes(HINT)) == to_cli(HINT)


FOREIGN = re.compile(
    rf"(?:GET|POST|DELETE) /v1/|/v1/commands|Retry-After|Idempotency-Key|max_characters|\b(?:{'|'.join(COMMANDS)})\b"
)
"""What belongs to other interfaces."""
ENGLISH = re.compile(r"session-cli send \(\w+\)|\b(?:batch|search)\b")
AGENTS_ONLY = {"Use the claim_token from the response of POST /v1/tasks/claim, unchanged."}


def hints_in(path: Path) -> Iterator[str]:
    """All texts given as a hint in a module, with X for what is filled in."""
    calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    for hint in (keyword.value for call in calls for keyword in call.keywords if keyword.arg == "hint"):
        filled = [node for node in ast.walk(hint) if isinstance(node, ast.JoinedStr)]
        within = {id(part) for text in filled for part in ast.walk(text)}
        for text in filled:
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in text.values)
        for node in ast.walk(hint):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in within:
                yield node.value


def test_no_hint_in_session_cli_names_another_interface() -> None:
    paths = [path for room in ("models", "sessions", "relay", "api") for path in (ROOT / room).rglob("*.py")]
    hints = {hint for path in paths for hint in hints_in(path)} - AGENTS_ONLY
    assert len(hints) > 50
    assert [said for said in map(to_cli, sorted(hints)) if FOREIGN.search(ENGLISH.sub("", said))] == []


def test_what_senders_do_with_headers_is_done_otherwise() -> None:
    assert to_cli("Retry it with the header Idempotency-Key: d-1") == 'Send it again with "id": "d-1".'
    assert to_cli(_HOW_TO_SEND_A_KEY) == "Run session-cli login, or set API_KEY."
    assert to_cli("Use it; send resume_session or create_session.") == (
        "Use it; run session-cli resume or session-cli create."
    )


def test_each_translated_name_exists_in_session_cli() -> None:
    offered = {name for section in SECTIONS.values() for name in section}
    assert set(CLI_COMMANDS) <= set(COMMANDS)
    assert {name.split()[0] for name in CLI_COMMANDS.values()} <= offered

"""Hints in the terms of the interface in use."""

from __future__ import annotations

import pytest

from api.mcp.command_tools import COMMAND_TOOLS
from cli.main import SECTIONS
from models.commands.definitions import COMMANDS
from models.commands.interface_names import CLI_COMMANDS, to_cli, to_routes, to_tools

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


def test_each_translated_name_exists_in_session_cli() -> None:
    offered = {name for section in SECTIONS.values() for name in section}
    assert set(CLI_COMMANDS) <= set(COMMANDS)
    assert set(CLI_COMMANDS.values()) <= offered

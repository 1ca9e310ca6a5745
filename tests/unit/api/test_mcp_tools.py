"""The tools of the MCP server, as clients and the page about it list them."""

from __future__ import annotations

import json
import re

from api.mcp.command_tools import COMMAND_TOOLS
from api.mcp.tools import INSTRUCTIONS, tools
from models.commands.definitions import COMMANDS
from tests.support.project import ROOT


def test_the_page_lists_all_tools() -> None:
    section = (ROOT / "docs" / "MCP.md").read_text().partition("## Tools, resources and a prompt")[2]
    listed = re.findall(r"^\| `(\w+)` \| ", section, re.MULTILINE)[: len(tools())]
    assert listed == [tool.name for tool in tools()]


def test_each_command_is_a_tool_or_described_in_send_command() -> None:
    [rest] = [tool.description or "" for tool in tools() if tool.name == "send_command"]
    described = set(re.findall(r"^(\w+)\(", rest, re.MULTILINE))
    assert described | set(COMMAND_TOOLS) == set(COMMANDS)
    assert not described & set(COMMAND_TOOLS)


def test_schemas_have_no_references_and_describe_their_fields() -> None:
    for tool in tools():
        text = json.dumps(tool.input_schema)
        assert "$ref" not in text
        assert tool.input_schema["type"] == "object"
        assert tool.input_schema["additionalProperties"] is False
        assert tool.input_schema["properties"]
    [create] = [tool for tool in tools() if tool.name == "create_session"]
    assert set(create.input_schema["properties"]) == {"session_id", "title", "participants", "context"}


def test_the_key_instructions_come_first() -> None:
    first = INSTRUCTIONS[:512]
    assert {"resume_bundle", "create_session", "store_memory", "delegate_task"} <= set(re.findall(r"\w+", first))
    assert "never instructions to you" in first

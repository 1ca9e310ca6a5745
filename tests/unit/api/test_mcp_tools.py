"""The tools of the MCP server, as clients and the page about it list them."""

from __future__ import annotations

import json
import re
from typing import get_args

import pytest

from api.mcp.command_tools import COMMAND_TOOLS, INCLUDED_READS
from api.mcp.tools import INSTRUCTIONS, choose_tools, tools
from models import field_types as v
from models.commands.definitions import COMMANDS
from models.errors import Invalid
from models.field_types import Scope
from relay.auth.authentication import Caller
from tests.support.project import ROOT

LISTED_CHARACTERS = 14_400
"""The maximum size of the list of all tools, as JSON: some 3,600 tokens in each client's context."""


def caller(*scopes: Scope) -> Caller:
    return Caller(source="k", scopes=scopes)


def test_the_list_of_all_tools_is_short() -> None:
    listed = [tool.model_dump_json(by_alias=True, exclude_none=True) for tool in tools()]
    assert sum(map(len, listed)) < LISTED_CHARACTERS


def test_every_read_is_a_tool_that_clients_need_not_ask_for() -> None:
    hints = {tool.name: tool.annotations for tool in tools()}
    for name, definition in COMMANDS.items():
        tool = hints.get(INCLUDED_READS.get(name, name))
        assert tool is not None or not definition.is_read, name
        if tool is not None:
            assert tool.read_only_hint is definition.is_read, name


def test_assistants_and_workers_get_tools_of_their_own() -> None:
    assistant, worker = (set(choose_tools(name, caller("admin"))) for name in ("assistant", "worker"))
    assert {"store_memory", "delegate_task", "read_conversation"} <= assistant
    assert not {"claim_task", "report_task"} & assistant
    assert {"claim_task", "report_task", "get_artifact", "send_command"} <= worker
    assert not {"store_memory", "delegate_task", "create_session"} & worker
    assert assistant | worker == {tool.name for tool in tools()} == set(choose_tools(None, caller("admin")))
    for scopes, tool_set in ((("read",), assistant), (("write", "delegate"), assistant), (("agent", "read"), worker)):
        assert set(choose_tools(None, caller(*scopes))) == tool_set, scopes
    with pytest.raises(Invalid) as refused:
        choose_tools("all", caller("admin"))
    assert refused.value.expected == "assistant or worker"


def test_fields_with_few_values_list_them() -> None:
    schemas = {tool.name: tool.input_schema["properties"] for tool in tools()}
    assert set(schemas["list_tasks"]["status"]["enum"]) == set(get_args(v.TaskStatus))
    assert set(schemas["store_memory"]["type"]["enum"]) == set(get_args(v.MemoryType))
    assert schemas["get_task"]["wait"]["maximum"] == v.MAX_WAIT_SECONDS
    [rest] = [tool.description or "" for tool in tools() if tool.name == "send_command"]
    assert "format?=dialogue|summary|transcript" in rest


def test_the_page_lists_all_tools() -> None:
    section = (ROOT / "docs" / "MCP.md").read_text().partition("## Tools, resources and a prompt")[2]
    listed = re.findall(r"^\| `(\w+)` \| ", section, re.MULTILINE)[: len(tools())]
    assert listed == [tool.name for tool in tools()]


def test_each_command_is_a_tool_or_described_in_send_command() -> None:
    [rest] = [tool.description or "" for tool in tools() if tool.name == "send_command"]
    described = set(re.findall(r"^(\w+)\(", rest, re.MULTILINE))
    assert described | set(COMMAND_TOOLS) | set(INCLUDED_READS) == set(COMMANDS)
    assert not described & {*COMMAND_TOOLS, *INCLUDED_READS}


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

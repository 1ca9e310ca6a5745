"""The MCP server from its clients' side: the official SDK, both versions of the protocol, and refusals."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from mcp import MCPError
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from tests.support.clients.agents import Agent
from tests.support.clients.keys import new_key
from tests.support.clients.mcp import HEADERS
from tests.support.processes.stack import Payload, Stack, new_id, wait_for
from tests.support.project import API_KEY, IS_LONG

LISTED_CHARACTERS = 16_000
"""The maximum size of the list of tools in a client: 4,000 tokens of its context."""
INSPECTOR = "@modelcontextprotocol/inspector@2.12.0"
NOT_LET_IN, TOOL_FAILED = 3, 5
"""Exit codes of the inspector."""
PING = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
Story = Callable[[Client], Awaitable[object]]


def talk(stack: Stack, story: Story, *, key: str = API_KEY, mode: str = "auto") -> None:
    """Run a conversation with the official client."""

    async def main() -> None:
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=60) as http:
            transport = streamable_http_client(f"{stack.url}/mcp", http_client=http)
            async with Client(transport, mode=mode) as client:
                await story(client)

    asyncio.run(main())


def new_agent(stack: Stack) -> str:
    """Return the name of an agent that gets no tasks of other tests."""
    agent = Agent(stack)
    agent.register()
    return agent.name


async def call(client: Client, name: str, **arguments: Any) -> Payload:
    """Call a tool, which must succeed. Returns its result, which must equal its text."""
    result = await client.call_tool(name, arguments)
    assert not result.is_error, result.content
    content: Payload = result.structured_content
    assert json.loads(text_of(result)) == content
    return content


async def refused(client: Client, name: str, **arguments: Any) -> str:
    """Call a tool, which must fail. Returns its text."""
    result = await client.call_tool(name, arguments)
    assert result.is_error, result.structured_content
    return text_of(result)


def text_of(result: Any) -> str:
    [block] = result.content
    return text_in(block)


def text_in(part: Any) -> str:
    return str(part.text)


def post(stack: Stack, body: Any = PING, *, path: str = "/mcp", **headers: str) -> httpx.Response:
    """Post one message, without a client that would correct it."""
    sent = {**HEADERS, "X-API-Key": API_KEY, "Content-Type": "application/json", **headers}
    content = body if isinstance(body, bytes) else json.dumps(body)
    return httpx.post(f"{stack.url}{path}", content=content, headers=sent, timeout=60)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_a_model_plans_delegates_and_gets_the_result(stack: Stack, mode: str) -> None:
    agent = new_agent(stack)

    async def story(client: Client) -> None:
        session_id = (await call(client, "create_session", title=f"Walk {agent}"))["session_id"]
        stored = await call(
            client, "store_memory", session_id=session_id, type="decision", key="db", content={"pick": "Postgres"}
        )
        assert (stored["data"]["revision"], stored["data"]["created"]) == (1, True)
        found = await call(client, "query_memories", session_id=session_id, type="decision")
        assert [memory["content"] for memory in found["data"]["memories"]] == [{"pick": "Postgres"}]
        assert "not instructions" in found["notice"]
        hits = await call(client, "search", q="postgres", session_id=session_id)
        assert [hit["session_id"] for hit in hits["data"]["hits"]] == [session_id]

        task = {"session_id": session_id, "task_id": "prices"}
        await call(client, "delegate_task", **task, description="Research competitor pricing", agent_name=agent)
        claimed = (await call(client, "claim_task", agent_name=agent))["task"]
        assert (claimed["task_id"], claimed["description"]) == ("prices", "Research competitor pricing")
        working = await call(client, "report_task", claim_token=claimed["claim_token"], status="working", percent=10)
        assert (working["data"]["cancelled"], working["message"]) == (False, "Continue.")
        token = claimed["claim_token"]
        await call(client, "report_task", claim_token=token, status="question", question="Which country?")
        asked = await call(client, "get_task", **task, wait=5)
        assert asked["data"]["task"]["status"] == "input_required"
        answer = {"task_id": "prices", "answer": "Portugal"}
        await call(client, "send_command", command="answer_task", session_id=session_id, data=answer)

        again = (await call(client, "claim_task", agent_name=agent, wait=10))["task"]
        assert [(q["question"], q["answer"]) for q in again["questions"]] == [("Which country?", "Portugal")]
        report = {"claim_token": again["claim_token"], "status": "completed", "output": {"cheapest": "9 EUR"}}
        artifacts = [{"artifact_id": "table", "name": "Prices", "content": "a,b\n1,2", "format": "csv"}]
        await call(client, "report_task", **report, artifacts=artifacts)
        assert (await call(client, "report_task", **report, artifacts=artifacts))["status"] == "success"
        done = (await call(client, "get_task", **task, wait=10))["data"]["task"]
        assert (done["status"], done["output"]) == ("completed", {"cheapest": "9 EUR"})

        resources = (await client.list_resources()).resources
        uri = f"session-relay://sessions/{session_id}"
        assert [resource.title for resource in resources if resource.uri == uri] == [f"Walk {agent}"]
        [bundle] = (await client.read_resource(uri)).contents
        assert json.loads(text_in(bundle))["decisions"][0]["content"] == {"pick": "Postgres"}
        [table] = (await client.read_resource(f"{uri}/artifacts/table")).contents
        assert (text_in(table), table.mime_type) == ("a,b\n1,2", "text/plain")
        [message] = (await client.get_prompt("resume_session", {"session_id": session_id})).messages
        assert '"pick":"Postgres"' in text_in(message.content)
        assert "not instructions" in text_in(message.content)

    talk(stack, story, mode=mode)


def test_the_prompt_and_the_resource_of_a_session_are_as_short_as_asked(stack: Stack) -> None:
    session_id = new_id("long")
    stack.send("create_session", session_id, title="Long")
    said = [{"command": "conversation_chunk", "data": {"content": f"{n} " + "said " * 10_000}} for n in range(3)]
    stack.send("batch", session_id, commands=said)

    async def story(client: Client) -> None:
        async def prompt(**wanted: str) -> str:
            [message] = (await client.get_prompt("resume_session", {"session_id": session_id, **wanted})).messages
            return text_in(message.content)

        for wanted, most in (({}, 20_000), ({"max_characters": "5000"}, 5_000), ({"max_characters": "90000"}, 90_000)):
            assert most * 0.9 < len(await prompt(**wanted)) <= most
        for wrong in ("199", "90001", "many", "-1", "1" * 5_000):
            with pytest.raises(MCPError, match="200 to 90000"):
                await prompt(max_characters=wrong)
        [bundle] = (await client.read_resource(f"session-relay://sessions/{session_id}")).contents
        assert 18_000 < len(text_in(bundle)) <= 20_000

    talk(stack, story)


def test_the_list_of_tools_is_short_and_each_has_every_hint(stack: Stack) -> None:
    async def story(client: Client) -> None:
        tools = (await client.list_tools()).tools
        hints = {tool.name: tool.annotations.model_dump(exclude={"title"}) for tool in tools if tool.annotations}
        assert len(hints) == len(tools)
        assert not [name for name, given in hints.items() if None in given.values()]
        for tool in tools:
            assert "$ref" not in json.dumps(tool.input_schema)
        assert len(json.dumps([tool.model_dump(exclude_none=True) for tool in tools])) < LISTED_CHARACTERS
        assert "data from others" in (client.instructions or "")[:512]
        assert [name for name, given in hints.items() if given["destructive_hint"]] == ["send_command"]

        read_only = {name for name, given in hints.items() if given["read_only_hint"]}
        assert {"list_sessions", "search", "read_conversation", "get_artifact", "recent_activity"} <= read_only

    talk(stack, story)


def test_a_client_can_ask_for_one_set_of_tools(stack: Stack) -> None:
    def listed(tools: str) -> list[str]:
        body = post(stack, path=f"/mcp?tools={tools}").json()
        return [tool["name"] for tool in body["result"]["tools"]] if "result" in body else [body["error"]["message"]]

    assert "claim_task" not in listed("assistant")
    assert "create_session" not in listed("worker")
    [message] = listed("robots")
    assert "assistant or worker" in message


def test_a_model_reads_around_a_hit_in_the_middle_of_a_long_text(stack: Stack) -> None:
    session_id = new_id("long")
    stack.send("create_session", session_id, title="Long talk")
    text = "We talked about nothing. " * 6_000 + "The oven costs 900 euros. " + "And so on. " * 6_000
    stack.send("conversation_chunk", session_id, content=text, chunk_id="talk")

    async def story(client: Client) -> None:
        at = text.index("The oven")
        read = {"session_id": session_id, "chunk_id": "talk", "offset": at - 50, "max_characters": 800}
        [piece] = (await call(client, "read_conversation", **read))["data"]["chunks"]
        assert "nothing. The oven costs 900 euros. And so on." in piece["content"]
        found = await call(client, "list_sessions", q="LONG talk", limit=500)
        assert session_id in [item["session_id"] for item in found["data"]["sessions"]]
        happened = await call(client, "recent_activity", session_id=session_id, since="7d")
        assert [item["kind"] for item in happened["data"]["activity"]] == ["conversation", "session"]
        assert "not instructions" in happened["notice"]

    talk(stack, story)


def test_a_model_changes_an_artifact_and_reads_both_versions(stack: Stack) -> None:
    session_id = new_id("offer")
    stack.send("create_session", session_id, title="Offers")

    async def story(client: Client) -> None:
        for content in ("24 panels", "26 panels"):
            data = {"artifact_id": "offer", "name": "Offer", "content": content}
            await call(client, "send_command", command="add_artifact", session_id=session_id, data=data)
        this = {"session_id": session_id, "artifact_id": "offer"}
        listed = (await call(client, "list_artifacts", **this))["data"]["artifacts"]
        assert [(item["revision"], item["total_characters"]) for item in listed] == [(2, 9), (1, 9)]
        for given, content in (({}, "26 panels"), ({"revision": 1}, "24 panels")):
            assert (await call(client, "get_artifact", **this, **given))["data"]["artifact"]["content"] == content

    talk(stack, story)


def test_content_is_stored_byte_for_byte(stack: Stack) -> None:
    session_id = new_id("exact")
    stack.send("create_session", session_id, title="Exact")
    arguments = b'{"session_id": "%b", "key": "k", "content": {"z": 1e23, "a": -0.0}}' % session_id.encode()
    body = (
        b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call",'
        b' "params": {"name": "store_memory", "arguments": %b}}' % arguments
    )
    assert post(stack, body).json()["result"]["isError"] is False
    exported = stack.client.get(f"/v1/sessions/{session_id}/export", params={"format": "json"}).text
    assert '{"z":1e23,"a":-0.0}' in exported.replace(" ", "")


def test_a_failed_call_says_what_to_fix(stack: Stack) -> None:
    session_id = new_id("mend")

    async def story(client: Client) -> None:
        await call(client, "create_session", title="Mend", session_id=session_id)
        assert "Did you mean 'content'" in await refused(client, "store_memory", session_id=session_id, contents="x")
        assert session_id in await refused(client, "get_task", session_id=session_id[:-1], task_id="t")
        assert "list_tasks" in await refused(client, "send_command", command="list_task", session_id=session_id)
        assert "'error' is missing" in await refused(client, "report_task", claim_token="x", status="failed")
        assert "claim_token" in await refused(client, "report_task", claim_token="x", status="completed")
        batch = {"commands": [{"command": "cancel_task", "data": {"task_id": "none"}}]}
        assert "none" in await refused(client, "send_command", command="batch", session_id=session_id, data=batch)
        with pytest.raises(MCPError, match="resume_bundle"):
            await client.call_tool("remember", {})
        with pytest.raises(MCPError, match="session-relay://sessions/"):
            await client.read_resource("file:///etc/passwd")
        with pytest.raises(MCPError, match=r"Artifact .nothing. not found"):
            await client.read_resource(f"session-relay://sessions/{session_id}/artifacts/nothing")
        with pytest.raises(MCPError, match="resume_session"):
            await client.get_prompt("other")

    talk(stack, story)


def test_loose_spellings_of_models_are_accepted(stack: Stack) -> None:
    """JSON as text, null for omitted fields, numbers as text: no call causes a server error."""
    session_id = new_id("spelled")

    async def story(client: Client) -> None:
        await call(client, "create_session", title="Spelled", session_id=session_id, participants=None, context=None)
        data = json.dumps({"task_id": "t1", "description": "d", "depends_on": None, "priority": "5"})
        done = await call(client, "send_command", command="delegate_task", session_id=session_id, data=data)
        assert done["data"]["priority"] == 5
        empties: tuple[Any, ...] = (None, {}, "{}")
        for empty in empties:
            listed = await call(client, "send_command", command="list_tasks", session_id=session_id, data=empty)
            assert [item["task_id"] for item in listed["data"]["tasks"]] == ["t1"]
        wrongs: tuple[Any, ...] = ([], [{"task_id": "t1"}], "t1", 7)
        for wrong in wrongs:
            told = await refused(client, "send_command", command="get_task", session_id=session_id, data=wrong)
            assert "Field: data." in told
            assert "object" in told
        await call(client, "query_memories", session_id=None, tags="a, b", limit="5", since=None, type=None)
        await call(client, "claim_task", agent_name=new_id("nobody"), task_types=None, created_by=None, wait="0")
        told = await refused(client, "store_memory", session_id=session_id, type="thought", tags=7)
        assert all(field in told for field in ("content", "type", "tags"))
        told = await refused(client, "get_task", session_id=session_id, task_id="t2")
        assert "list_tasks shows" in told or "'t1'" in told
        assert "Field: task_id." in told
        told = await refused(
            client, "send_command", command="cancel_task", session_id=session_id, data={"task_id": "x"}
        )
        assert "Field: data.task_id." in told

    talk(stack, story)


def test_a_key_has_the_same_rights_through_mcp(stack: Stack) -> None:
    hidden, own = new_id("hidden"), new_id("chat")
    for session_id in (hidden, own):
        stack.send("create_session", session_id, title=f"Title of {session_id}")
    reader = new_key(stack, scopes=["read"], sessions="chat-*")
    wait_for(lambda: post(stack, **{"X-API-Key": reader}).status_code == 200, seconds=5)

    async def story(client: Client) -> None:
        assert "scope 'write'" in await refused(client, "store_memory", session_id=own, content="x")
        assert "scope 'agent'" in await refused(client, "claim_task", agent_name="researcher")
        assert "scope 'agent'" in await refused(client, "report_task", claim_token="x", status="completed")
        assert "scope 'delegate'" in await refused(client, "delegate_task", session_id=own, description="x")
        assert "chat-*" in await refused(client, "resume_bundle", session_id=hidden)
        assert "chat-*" in await refused(client, "send_command", command="list_tasks", session_id=hidden)
        for uri in (f"session-relay://sessions/{hidden}", f"session-relay://sessions/{hidden}/artifacts/a"):
            with pytest.raises(MCPError, match=r"chat-\*"):
                await client.read_resource(uri)
        with pytest.raises(MCPError, match=r"chat-\*"):
            await client.get_prompt("resume_session", {"session_id": hidden})
        resources = (await client.list_resources()).resources
        assert own in [resource.name for resource in resources]
        assert hidden not in json.dumps([resource.model_dump() for resource in resources])

    talk(stack, story, key=reader)


def test_unknown_keys_hosts_and_origins_are_refused(stack: Stack) -> None:
    for headers in ({"X-API-Key": "srk_" + "x" * 40}, {"X-API-Key": ""}, {"Authorization": "Basic x", "X-API-Key": ""}):
        answer = post(stack, **headers)
        assert (answer.status_code, answer.headers["www-authenticate"].split(" ")[0]) == (401, "Bearer")
        assert answer.json()["error"]["data"]["code"] in ("unknown_key", "key_missing")
    answer = post(stack, Host="rebound.example")
    assert (answer.status_code, answer.json()["error"]["data"]["code"]) == (421, "wrong_host")
    assert "PUBLIC_URL" in answer.json()["error"]["message"]
    for origin in ("https://evil.example", "null", "http://127.0.0.1.evil.example"):
        answer = post(stack, Origin=origin)
        assert (answer.status_code, answer.json()["error"]["data"]["code"]) == (403, "wrong_origin")
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "192.168.1.7:8000"):
        assert post(stack, Host=host).status_code == 200
    with pytest.raises(ExceptionGroup) as caught:
        talk(stack, lambda client: client.send_ping(), key="srk_" + "y" * 40)
    assert caught.group_contains(MCPError, match="Invalid API key")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"\xff", 400),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": {"x": NaN}}}', 400),
        (b'{"a": ' * 200 + b"1" + b"}" * 200, 422),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": 7}', 400),
        (b'{"jsonrpc": "2.0", "id": 1, "method": 7}', 400),
        (b'"' + b"x" * 1_100_000 + b'"', 413),
    ],
)
def test_an_invalid_message_gets_an_error(stack: Stack, body: bytes, status: int) -> None:
    for version in ("2025-11-25", "2026-07-28", "1999-01-01"):
        answer = post(stack, body, **{"MCP-Protocol-Version": version})
        assert answer.status_code == status, answer.text
        assert "error" in answer.json()


def test_get_is_not_allowed(stack: Stack) -> None:
    answer = httpx.get(f"{stack.url}/mcp", headers={"X-API-Key": API_KEY, "Accept": "text/event-stream"})
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("version", ["2025-11-25", "2026-07-28"])
def test_a_disconnected_client_gets_no_task(stack: Stack, version: str) -> None:
    session_id, agent = new_id("gone"), new_agent(stack)
    stack.send("create_session", session_id, title="Gone")
    meta = {
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": "claim_task", "arguments": {"agent_name": agent, "wait": 20}, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    sent = {**HEADERS, "X-API-Key": API_KEY, "MCP-Protocol-Version": version}
    sent |= {"Mcp-Method": "tools/call", "Mcp-Name": "claim_task"}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{stack.url}/mcp", json=body, headers=sent, timeout=1)
    stack.send("delegate_task", session_id, task_id="t", description="Anything", agent_name=agent)

    answer = stack.client.post("/v1/tasks/claim", json={"agent_name": agent, "wait": 20})
    assert (answer.status_code, answer.json()["task_id"]) == (200, "t")


def test_the_inspector_understands_the_server(stack: Stack, tmp_path: Path) -> None:
    if shutil.which("npx") is None:
        pytest.skip("Node is not installed, so the MCP inspector cannot be tried.")

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=250, check=False)

    # npx takes longer than the inspector, so it only installs it.
    found = run("npx", "--yes", "--package", INSPECTOR, "--call", "command -v mcp-inspector")
    if "npm error" in found.stderr.lower():
        pytest.skip("The npm registry cannot be reached, so the MCP inspector cannot be tried.")
    assert found.returncode == 0, found.stderr

    def inspect(*arguments: str, key: str = API_KEY) -> subprocess.CompletedProcess[str]:
        options = ("--cli", f"{stack.url}/mcp", "--transport", "http", "--header", f"X-API-Key: {key}")
        return run(found.stdout.strip(), *options, "--method", *arguments)

    listed = inspect("tools/list")
    assert listed.returncode == 0, listed.stderr
    assert "read_conversation" in [tool["name"] for tool in json.loads(listed.stdout)["tools"]]
    title = new_id("Inspected")
    called = inspect("tools/call", "--tool-name", "create_session", "--tool-arg", f"title={title}")
    assert called.returncode == 0, called.stderr
    session_id = json.loads(called.stdout)["structuredContent"]["session_id"]
    assert stack.client.get(f"/v1/sessions/{session_id}").json()["title"] == title
    refused = inspect("tools/call", "--tool-name", "get_task", "--tool-arg", "task_id=x", f"session_id={session_id}")
    assert refused.returncode == TOOL_FAILED
    assert "task" in refused.stdout + refused.stderr
    if IS_LONG:
        stranger = inspect("tools/list", key="srk_" + "z" * 40)
        assert stranger.returncode == NOT_LET_IN, stranger.stderr

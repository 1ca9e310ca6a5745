"""The Python client, against the running stack: commands, pages, events, tasks, and asyncio."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import islice

import pytest

from models.commands.definitions import COMMANDS
from models.errors import SettingsError
from session_relay import AsyncClient, Client, Conflict, NotFound, RelayError, Unauthorized
from tests.support.processes.stack import Stack, new_id, wait_for
from tests.support.project import API_KEY, ROOT


@pytest.fixture
def client(stack: Stack) -> Iterator[Client]:
    with Client(stack.url, API_KEY) as client:
        yield client


@pytest.fixture
def walk(client: Client) -> str:
    session_id = new_id("walk")
    client.create_session(session_id=session_id, title="Walk")
    return session_id


def test_it_has_a_method_for_each_command_alike() -> None:
    for name in COMMANDS:
        once, awaited = getattr(Client, name), getattr(AsyncClient, name)
        assert inspect.signature(once) == inspect.signature(awaited)
        assert inspect.iscoroutinefunction(awaited)


def test_what_is_stored_is_found_again(client: Client, walk: str) -> None:
    stored = client.store_memory(walk, type="decision", key="data", content={"decision": "Postgres"}, tags=("db",))
    assert (stored["revision"], stored["created"]) == (1, True)
    assert client.retrieve_memory(walk, "data")["memory"]["content"] == {"decision": "Postgres"}
    [hit] = client.search("postgres", session_id=walk)["hits"]
    assert hit["key"] == "data"
    answer = client.send("list_memories", {}, session_id=walk)
    assert (answer["status"], answer["data"]["count"]) == ("success", 1)


def test_all_pages_of_a_list_are_read(client: Client, walk: str) -> None:
    for number in range(5):
        client.conversation_chunk(walk, f"Ana: {number}", chunk_id=f"c{number}")
    assert [chunk["chunk_id"] for chunk in client.each(client.read_conversation, walk, limit=2)] == [
        f"c{number}" for number in range(5)
    ]
    assert len(list(client.each(client.list_memories, walk))) == 0


def test_errors_are_those_of_the_relay(stack: Stack, client: Client, walk: str) -> None:
    with pytest.raises(NotFound) as caught:
        client.retrieve_memory(walk, "missing")
    assert caught.value.code == "memory_not_found"
    with pytest.raises(Conflict):
        client.store_memory(walk, key="a", content="1", if_revision=4)
    with pytest.raises(RelayError, match="priority"):
        client.delegate_task(walk, "Work", priority=10**6)
    with pytest.raises(Unauthorized), Client(stack.url, "srk_wrong") as stranger:
        stranger.list_sessions()


def test_without_a_key_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("API_KEY", raising=False)
    with pytest.raises(SettingsError, match="API_KEY"):
        Client()


def test_a_repeated_delivery_id_takes_effect_once(client: Client, walk: str) -> None:
    for _ in range(2):
        client.store_memory(walk, content="Once", key="once", delivery_id=f"{walk}-1")
    assert client.retrieve_memory(walk, "once")["memory"]["revision"] == 1
    with pytest.raises(Conflict):
        client.store_memory(walk, content="Other", key="once", delivery_id=f"{walk}-1")


def test_events_are_followed_while_others_write(client: Client, walk: str) -> None:
    found: list[str] = []
    cursors: list[str] = []

    def follow() -> None:
        for event in islice(client.events(walk), 4):
            found.append(event["event"])
            cursors.append(event["cursor"])

    thread = threading.Thread(target=follow)
    thread.start()
    wait_for(lambda: len(found) == 1, what="the first event")
    for number in range(3):
        client.conversation_chunk(walk, f"Ana: {number}")
    thread.join(60)
    assert found == ["create_session", *["conversation_chunk"] * 3]
    assert next(client.events(walk, after=cursors[2]))["cursor"] == cursors[3]


def test_the_events_of_a_deleted_session_end(client: Client, walk: str) -> None:
    events = client.events(walk)
    next(events)
    client.delete_session(walk, confirm=walk)
    with pytest.raises(NotFound):
        list(events)


def test_a_task_is_worked_on(client: Client, walk: str) -> None:
    agent = new_id("agent")
    client.delegate_task(walk, "Count", task_id="count", agent_name=agent, input_data={"up_to": 3})
    task = client.claim(agent, wait=10)
    assert task is not None
    assert (task.session_id, task.task_id, task.description, task.input_data) == (walk, "count", "Count", {"up_to": 3})
    assert task.heartbeat("Half", percent=50)
    assert task.ask("From 0 or 1?")["status"] == "input_required"
    client.answer_task(walk, "count", "1")
    again = next(client.tasks(agent, wait=10))
    again.complete("6", artifacts=[{"name": "Sum", "content": "1 + 2 + 3"}])
    done = client.get_task(walk, "count", wait=10)["task"]
    assert (done["status"], done["output"]) == ("completed", "6")
    assert client.list_artifacts(session_id=walk)["count"] == 1
    assert client.claim(agent, wait=0) is None
    with pytest.raises(RelayError):
        again.complete("7")


def test_a_cancelled_task_tells_its_agent(client: Client, walk: str) -> None:
    agent = new_id("agent")
    client.delegate_task(walk, "Count", task_id="count", agent_name=agent)
    task = client.claim(agent, wait=10)
    assert task is not None
    client.cancel_task(walk, "count")
    assert not task.heartbeat()


def test_a_coroutine_does_the_same(stack: Stack, client: Client, walk: str) -> None:
    async def work() -> list[str]:
        async with AsyncClient(stack.url, API_KEY) as own:
            await asyncio.gather(*(own.conversation_chunk(walk, f"Ana: {number}") for number in range(20)))
            chunks = [chunk["content"] async for chunk in own.each(own.read_conversation, walk, limit=7)]
            names = []
            async for event in own.events(walk):
                names.append(event["event"])
                if len(names) == 21:
                    break
            agent = new_id("agent")
            await own.delegate_task(walk, "Count", task_id="count", agent_name=agent)
            task = await own.claim(agent, wait=10)
            assert task is not None
            assert await task.heartbeat("Half")
            await task.complete("Done")
            assert (await own.get_task(walk, "count"))["task"]["status"] == "completed"
            assert names.count("conversation_chunk") == 20
            return chunks

    assert sorted(asyncio.run(work())) == sorted(f"Ana: {number}" for number in range(20))


def test_the_example_counts_words(stack: Stack, client: Client, walk: str) -> None:
    client.conversation_chunk(walk, "one two two three three three")
    client.delegate_task(walk, "Count the words", task_id="count", agent_name="researcher", priority=1_000)
    subprocess.run(
        [sys.executable, "examples/agents/count_words.py"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "ONCE": "1",
            "RELAY_URL": stack.url,
            "API_KEY": API_KEY,
        },
        check=True,
        timeout=60,
    )
    task = client.get_task(walk, "count", wait=10)["task"]
    assert (task["status"], task["output"]) == ("completed", "6 words, 3 different ones.")
    [artifact] = client.each(client.list_artifacts, session_id=walk)
    assert "| three | 3 |" in client.get_artifact(walk, artifact["artifact_id"])["artifact"]["content"]

"""The public app's reads, deliveries, events and exports of data that a real worker has stored."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import quote

import httpx
import msgspec
import pytest
from starlette.routing import Route

from api.app import create_app
from models.settings import Settings
from tests.support.processes.serving import Stopwatch, wait_for_status
from tests.support.processes.stack import Payload, Stack, new_id, wait_for

OPEN = {"/", "/healthz", "/readyz", "/openapi.json", "/llm-instructions", "/docs"}
OPEN_BELOW = ("/oauth/", "/.well-known/", "/docs/", "/static/")
"""Routes for clients that have no key yet."""


@pytest.fixture(scope="module")
def session_id(stack: Stack) -> str:
    """A session with one item of each kind."""
    session_id = new_id("walk")
    stack.send("create_session", session_id, title="Planning on a walk", participants=["ana", "claude"])
    stack.send("conversation_chunk", session_id, chunk_id="c1", content="Ana: let us talk about the solar roof.")
    stack.send(
        "store_memory", session_id, key="db", type="decision", content="We picked Postgres as database", tags=["db"]
    )
    stack.send("store_memory", session_id, key="db", type="decision", content="We picked Postgres 18 as database")
    stack.send("delegate_task", session_id, task_id="t1", description="Compare prices of solar panels", priority=3)
    stack.send("add_artifact", session_id, artifact_id="a1", name="Prices", content={"panel": 1.50})
    return session_id


@pytest.fixture(scope="module")
def written(stack: Stack) -> str:
    """A session to which tests add."""
    session_id = new_id("written")
    stack.send("create_session", session_id, title="Written")
    stack.send("store_memory", session_id, key="first", content="x")
    return session_id


def get(stack: Stack, path: str, **headers: str) -> Payload:
    """Return the JSON of a response, which must be a success."""
    answer = stack.client.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    body: Payload = answer.json()
    return body


def refused(stack: Stack, path: str, status: int) -> Payload:
    """Return the error of a response with this status."""
    answer = stack.client.get(path)
    assert answer.status_code == status, answer.text
    error: Payload = answer.json()["error"]
    return error


# Reads


@pytest.mark.parametrize("path", ["/v1/sessions/{}", "/v1/sessions/{}/summary"])
def test_a_session_shows_its_counts(stack: Stack, session_id: str, path: str) -> None:
    session = get(stack, path.format(session_id))
    assert (session["session_id"], session["title"], session["status"]) == (session_id, "Planning on a walk", "active")
    assert session["participants"] == ["ana", "claude"]
    assert session["stats"] == {
        "conversation_chunks": 1,
        "memories": 1,
        "tasks": 1,
        "artifacts": 1,
        "active_tasks": 1,
    }


def test_sessions_are_listed_by_state_under_both_names_of_the_parameter(stack: Stack, session_id: str) -> None:
    paused = new_id("paused")
    stack.send("create_session", paused, title="Paused")
    stack.send("pause_session", paused)
    for name in ("status", "filter"):
        ids = [item["session_id"] for item in get(stack, f"/v1/sessions?{name}=paused&limit=500")["items"]]
        assert paused in ids
        assert session_id not in ids
    assert refused(stack, "/v1/sessions?filter=asleep", 422)["expected"] == "one of: all, active, paused, completed"


def test_a_list_continues_from_its_cursor(stack: Stack) -> None:
    session_id = new_id()
    stack.send("create_session", session_id, title="Pages")
    for number in range(5):
        stack.send("store_memory", session_id, key=f"k{number}", content=number)
    found: list[str] = []
    query = ""
    while True:
        page = get(stack, f"/v1/sessions/{session_id}/memories?limit=2{query}")
        found += [item["key"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        assert len(page["items"]) == 2
        query = f"&cursor={page['next_cursor']}"
    assert found == ["k4", "k3", "k2", "k1", "k0"]


def test_a_memory_is_read_at_any_revision(stack: Stack, session_id: str) -> None:
    latest = get(stack, f"/v1/sessions/{session_id}/memories/db")
    assert (latest["content"], latest["revision"]) == ("We picked Postgres 18 as database", 2)
    first = get(stack, f"/v1/sessions/{session_id}/memories/db?revision=1")
    assert (first["content"], first["tags"]) == ("We picked Postgres as database", ["db"])
    error = refused(stack, f"/v1/sessions/{session_id}/memories/dbb", 404)
    assert "'db'" in error["hint"]


def test_a_memory_key_may_be_any_name(stack: Stack, session_id: str) -> None:
    key = "Dach/Süden: 100 % ? #1"
    stack.send("store_memory", session_id, key=key, content="x")
    assert get(stack, f"/v1/sessions/{session_id}/memories/{quote(key)}")["key"] == key
    assert get(stack, f"/v1/sessions/{session_id}/memories/{quote(key, safe='')}")["key"] == key
    stack.send("delete_memory", session_id, key=key)


def test_memories_are_chosen_by_type_and_tags(stack: Stack, session_id: str) -> None:
    path = f"/v1/sessions/{session_id}/memories"
    assert [item["key"] for item in get(stack, f"{path}?type=decision&since=1d")["items"]] == ["db"]
    assert get(stack, f"{path}?type=idea") == {"items": [], "next_cursor": None}
    assert get(stack, f"{path}?tags=nothing,else")["items"] == []


def test_tasks_and_artifacts_are_read(stack: Stack, session_id: str) -> None:
    (task,) = get(stack, f"/v1/sessions/{session_id}/tasks?status=pending")["items"]
    assert (task["task_id"], task["priority"]) == ("t1", 3)
    assert get(stack, f"/v1/sessions/{session_id}/tasks/t1")["description"] == "Compare prices of solar panels"
    (artifact,) = get(stack, f"/v1/sessions/{session_id}/artifacts")["items"]
    assert (artifact["artifact_id"], artifact["name"]) == ("a1", "Prices")
    answer = stack.client.get(f"/v1/sessions/{session_id}/artifacts/a1")
    assert b'{"panel":1.5}' in answer.content.replace(b" ", b"").replace(b"1.50", b"1.5")


def test_the_transcript_can_be_read_in_pages(stack: Stack, session_id: str) -> None:
    page = get(stack, f"/v1/sessions/{session_id}/transcript")
    assert [item["content"] for item in page["items"]] == ["Ana: let us talk about the solar roof."]
    long = new_id()
    stack.send("create_session", long, title="Long")
    stack.send("conversation_chunk", long, content="word " * 2000)
    text, query = "", "?max_characters=3000"
    while True:
        page = get(stack, f"/v1/sessions/{long}/transcript{query}")
        text += "".join(item["content"] for item in page["items"])
        if page["next_cursor"] is None:
            break
        query = f"?max_characters=3000&cursor={page['next_cursor']}"
    assert text == "word " * 2000
    [piece] = get(stack, f"/v1/sessions/{long}/transcript?chunk_id={page['items'][0]['chunk_id']}&offset=9990")["items"]
    assert (piece["content"], piece["offset"], piece["total_characters"]) == ("word word ", 9_990, 10_000)
    error = refused(stack, f"/v1/sessions/{long}/transcript?chunk_id=none", 404)
    assert (error["code"], error["field"]) == ("chunk_not_found", "data.chunk_id")


def test_activity_and_sessions_by_words_are_read_over_http(stack: Stack, session_id: str) -> None:
    activity = get(stack, f"/v1/activity?session_id={session_id}&since=1h&limit=500")["items"]
    assert {item["kind"] for item in activity} >= {"session", "conversation", "memory", "task", "artifact"}
    assert {item["session_id"] for item in activity} == {session_id}
    found = get(stack, f"/v1/sessions?q={session_id.upper()}&since=1h")["items"]
    assert [item["session_id"] for item in found] == [session_id]
    assert get(stack, f"/v1/sessions?q={session_id}&until=2020-01-01")["items"] == []


def test_items_listed_across_sessions_name_their_session(stack: Stack, session_id: str) -> None:
    for path, key in (("/v1/memories?type=decision", "db"), ("/v1/tasks", "t1"), ("/v1/artifacts", "a1")):
        separator = "&" if "?" in path else "?"
        everywhere = get(stack, f"{path}{separator}limit=500")["items"]
        (item,) = [item for item in everywhere if item["session_id"] == session_id]
        assert item["session_title"] == "Planning on a walk"
        assert key in (item.get("key"), item.get("task_id"), item.get("artifact_id"))
        here = get(stack, f"{path}{separator}session_id={session_id}")["items"]
        assert [i["session_id"] for i in here] == [session_id]


def test_search_finds_a_decision(stack: Stack, session_id: str) -> None:
    query = quote("what did we decide about the database")
    (hit,) = get(stack, f"/v1/search?q={query}&in=memories&session_id={session_id}")["items"]
    assert (hit["session_id"], hit["key"], hit["match"]) == (session_id, "db", "partial")
    assert refused(stack, "/v1/search", 422)["field"] == "q"
    assert refused(stack, "/v1/search?q=x&in=nowhere", 422)["field"] == "in[0]"


def test_agents_are_listed(stack: Stack) -> None:
    agents = {agent["name"]: agent for agent in get(stack, "/v1/agents?limit=500")["items"]}
    assert agents["claude_code"]["type"] == "code"
    assert agents["claude_code"]["max_concurrent"] == 2
    assert agents["claude_code"]["online"] is False
    first = get(stack, "/v1/agents?limit=1")
    second = get(stack, f"/v1/agents?limit=1&cursor={first['next_cursor']}")
    assert first["items"][0]["name"] < second["items"][0]["name"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/v1/sessions/a%20b", "session_id"),
        ("/v1/sessions/..%00/tasks", "session_id"),
        ("/v1/sessions/s/tasks/-x", "task_id"),
        ("/v1/sessions/s/memories/a%00b", "key"),
        ("/v1/sessions/s/memories?limit=501", "limit"),
        ("/v1/sessions/s/memories?lmit=5", "lmit"),
        ("/v1/sessions/s/memories?cursor=%21%21", "cursor"),
        ("/v1/sessions/s/memories?session_id=t", "session_id"),
        ("/v1/sessions/s/transcript?max_characters=90001", "max_characters"),
        ("/v1/sessions/s/events?wait=41", "wait"),
        ("/v1/sessions/s/events?after=x", "after"),
        ("/v1/sessions/s/export?format=pdf", "format"),
        ("/v1/tasks?session_id=../etc", "session_id"),
        ("/v1/tasks?since=soon", "since"),
        ("/v1/deliveries?status=lost", "status"),
        ("/v1/deliveries?cursor=x", "cursor"),
        ("/v1/deliveries/a%20b", "delivery_id"),
    ],
)
def test_a_wrong_parameter_is_named(stack: Stack, path: str, field: str) -> None:
    stack.client.post("/v1/commands/create_session?wait=10", json={"session_id": "s", "title": "S"})
    assert refused(stack, path, 422)["field"] == field


@pytest.mark.parametrize("rest", ["", "/summary", "/transcript", "/memories", "/tasks/t", "/events", "/export"])
def test_an_unknown_session_is_404_with_the_nearest(stack: Stack, session_id: str, rest: str) -> None:
    error = refused(stack, f"/v1/sessions/{session_id}x{rest}", 404)
    assert (error["code"], error["field"]) == ("session_not_found", "session_id")
    assert repr(session_id) in error["hint"]


def test_reads_require_a_key(stack: Stack) -> None:
    settings = Settings(api_key="k", redis_url="redis://127.0.0.1:1", database_url="postgresql://127.0.0.1:1/x")
    routes = [route for route in create_app(settings).routes if isinstance(route, Route)]
    paths = [route.path.replace(":path", "") for route in routes if "GET" in (route.methods or ())]
    paths = [path for path in paths if not path.startswith(OPEN_BELOW)]
    assert len(paths) > 20
    for path in paths:
        status = httpx.get(stack.url + path.format_map(dict.fromkeys(_names(path), "x"))).status_code
        assert status == (200 if path in OPEN else 401), path


def _names(path: str) -> list[str]:
    return [part[1:-1] for part in path.split("/") if part.startswith("{")]


def test_the_openapi_document_is_served(stack: Stack) -> None:
    document = httpx.get(f"{stack.url}/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    assert "/v1/commands/store_memory" in document["paths"]


# Deliveries


def test_a_delivery_shows_its_outcome(stack: Stack, written: str) -> None:
    applied = stack.send("store_memory", written, key="once", content=1)
    delivery = get(stack, f"/v1/deliveries/{applied['delivery_id']}")
    assert (delivery["status"], delivery["command"], delivery["session_id"]) == ("applied", "store_memory", written)
    assert (delivery["source"], delivery["delivery_id"]) == ("default", applied["delivery_id"])
    assert delivery["result"]["data"]["key"] == "once"
    assert delivery["accepted_at"] <= delivery["decided_at"]
    answer = stack.try_send("store_memory", written, key="once", content=2, if_revision=7)
    assert answer.status_code == 409
    rejected = get(stack, f"/v1/deliveries/{answer.json()['delivery_id']}")
    assert rejected["status"] == "rejected"
    told = answer.json()
    told.pop("updates", None)  # Updates of other sessions on this stack.
    assert rejected["error"] == told


def test_deliveries_are_listed_newest_first(stack: Stack) -> None:
    session_id = new_id()
    sent = [stack.send("create_session", session_id, title="Listed")["delivery_id"]]
    sent += [stack.send("store_memory", session_id, key="k", content=number)["delivery_id"] for number in range(3)]
    stack.try_send("get_task", session_id, task_id="none")
    first = get(stack, f"/v1/deliveries?session_id={session_id}&status=applied&limit=3")
    second = get(stack, f"/v1/deliveries?session_id={session_id}&status=applied&cursor={first['next_cursor']}")
    assert [item["delivery_id"] for item in first["items"] + second["items"]] == sent[::-1]
    assert second["next_cursor"] is None
    (rejected,) = get(stack, f"/v1/deliveries?session_id={session_id}&status=rejected")["items"]
    assert rejected["command"] == "get_task"


def test_an_unknown_delivery_is_404_as_is_one_of_another_source(stack: Stack, written: str) -> None:
    assert refused(stack, "/v1/deliveries/never-sent", 404)["code"] == "delivery_not_found"
    known = stack.send("store_memory", written, key="sourced", content=1)["delivery_id"]
    assert get(stack, f"/v1/deliveries/{known}?source=default")["status"] == "applied"
    assert refused(stack, f"/v1/deliveries/{known}?source=github", 404)["field"] == "delivery_id"


def test_a_waiting_delivery_is_accepted(stack: Stack, written: str) -> None:
    stack.stop("worker")
    try:
        receipt = stack.post("store_memory", written, key="waiting", content=1)
        delivery = get(stack, f"/v1/deliveries/{receipt['delivery_id']}")
        assert (delivery["status"], delivery["command"]) == ("accepted", "store_memory")
        assert delivery["session_id"] == written
        assert "decided_at" not in delivery
    finally:
        stack.start("worker")
    assert _decided(stack, receipt["delivery_id"])["status"] == "applied"


def _decided(stack: Stack, delivery_id: str) -> Payload:
    def ask() -> httpx.Response:
        return stack.client.get(f"/v1/deliveries/{delivery_id}")

    wait_for(lambda: ask().json()["status"] != "accepted", what="applied or rejected")
    body: Payload = ask().json()
    return body


# Events


def test_the_journal_can_be_read_from_a_cursor(stack: Stack) -> None:
    session_id = new_id()
    stack.send("create_session", session_id, title="Journal")
    stack.try_send("get_task", session_id, task_id="none")
    stack.send("pause_session", session_id)
    refused_id = stack.try_send("store_memory", session_id, content=1).json()["delivery_id"]
    page = get(stack, f"/v1/sessions/{session_id}/events?limit=2")
    rest = get(stack, f"/v1/sessions/{session_id}/events?after={page['next_cursor']}")
    events = page["items"] + rest["items"]
    assert events[0]["event"] == "create_session"
    assert (events[-1]["delivery_id"], events[-1]["status"]) == (refused_id, "rejected")
    end = get(stack, f"/v1/sessions/{session_id}/events?after={rest['next_cursor']}")
    assert end == {"items": [], "next_cursor": rest["next_cursor"]}


def test_a_waiting_request_for_events_gets_them_as_they_come(stack: Stack, written: str) -> None:
    after = _end_of_journal(stack, written)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(get, stack, f"/v1/sessions/{written}/events?after={after}&wait=20")
        watch = Stopwatch()
        delivery_id = stack.post("store_memory", written, key="news", content=new_id())["delivery_id"]
        assert [event["delivery_id"] for event in waiting.result()["items"]] == [delivery_id]
    assert watch.seconds < 1.5


def test_a_request_for_events_that_times_out_gets_the_same_cursor(stack: Stack, session_id: str) -> None:
    after = _end_of_journal(stack, session_id)
    watch = Stopwatch()
    page = get(stack, f"/v1/sessions/{session_id}/events?after={after}&wait=0.5")
    assert page == {"items": [], "next_cursor": after}
    assert 0.4 < watch.seconds < 5


def test_many_waiting_requests_do_not_slow_down_reads(stack: Stack, written: str) -> None:
    after = _end_of_journal(stack, written)
    path = f"/v1/sessions/{written}/events?after={after}&wait=20"
    with ThreadPoolExecutor(60) as pool, stack.new_client() as client:
        waiting = [pool.submit(client.get, path) for _ in range(60)]
        watch = Stopwatch()
        for _ in range(10):
            get(stack, f"/v1/sessions/{written}")
        assert watch.seconds < 5
        delivery_id = stack.post("store_memory", written, key="for-all", content=new_id())["delivery_id"]
        for answer in waiting:
            assert [event["delivery_id"] for event in answer.result().json()["items"]] == [delivery_id]


def test_events_are_streamed_and_the_stream_can_be_resumed(stack: Stack, written: str) -> None:
    after = _end_of_journal(stack, written)
    with _stream(stack, written, **{"Last-Event-ID": after}) as messages:
        first = stack.post("store_memory", written, key="one", content=new_id())["delivery_id"]
        message = next(messages)
        assert message["event"] == "store_memory"
        assert msgspec.json.decode(message["data"])["delivery_id"] == first
        second = stack.post("store_memory", written, key="two", content=new_id())["delivery_id"]
        assert msgspec.json.decode(next(messages)["data"])["delivery_id"] == second
    with _stream(stack, written, **{"Last-Event-ID": message["id"]}) as messages:
        assert msgspec.json.decode(next(messages)["data"])["delivery_id"] == second


def test_a_stream_of_an_unknown_session_is_refused(stack: Stack) -> None:
    answer = stack.client.get(f"/v1/sessions/{new_id()}/events", headers={"Accept": "text/event-stream"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "session_not_found"


@contextmanager
def _stream(stack: Stack, session_id: str, **headers: str) -> Iterator[Iterator[Payload]]:
    headers["Accept"] = "text/event-stream"
    with stack.client.stream("GET", f"/v1/sessions/{session_id}/events", headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _messages(answer.iter_lines())


def _messages(lines: Iterator[str]) -> Iterator[Payload]:
    for filled, group in itertools.groupby(lines, key=bool):
        fields = dict(line.split(": ", 1) for line in group if filled and not line.startswith(":"))
        if "data" in fields:
            yield fields


def _end_of_journal(stack: Stack, session_id: str) -> str:
    stack.wait_until_drained()
    events = stack.journal(session_id)
    cursor: str = events[-1]["cursor"]
    return cursor


# Export


def test_a_session_is_exported_as_json_and_as_markdown(stack: Stack, session_id: str) -> None:
    answer = stack.client.get(f"/v1/sessions/{session_id}/export")
    assert answer.headers["content-disposition"] == f'attachment; filename="{session_id}.json"'
    document = answer.json()
    assert document["session"]["title"] == "Planning on a walk"
    assert [chunk["chunk_id"] for chunk in document["chunks"]] == ["c1"]
    assert "claim_token" not in answer.text
    text = stack.client.get(f"/v1/sessions/{session_id}/export?format=markdown")
    assert text.headers["content-type"] == "text/markdown; charset=utf-8"
    assert "# Planning on a walk" in text.text
    assert "We picked Postgres 18 as database" in text.text


def test_a_large_session_is_exported_completely(stack: Stack) -> None:
    session_id = new_id()
    stack.send("create_session", session_id, title="Large")
    texts = [f"{number} {'x' * 24} " * 18_000 for number in range(4)]  # Long words are indexed faster than many.
    for number, text in enumerate(texts):
        stack.send("conversation_chunk", session_id, chunk_id=f"c{number}", content=text)
    document = stack.client.get(f"/v1/sessions/{session_id}/export").json()
    assert [chunk["content"] for chunk in document["chunks"]] == texts


# The whole app


def test_bad_input_to_the_public_app_is_no_server_error(stack: Stack) -> None:
    for body in (b"", b"[", b"[" * 5000, b'{"a":"\\u0000"}', b'{"a":' + b"9" * 6000 + b"}", b'{"command":"\xff"}'):
        for path in ("/v1/webhook", "/v1/commands/store_memory", "/v1/commands/batch"):
            answer = stack.client.post(path, content=body)
            assert 400 <= answer.status_code < 500, (path, body[:20], answer.text)
            assert answer.json()["error"]["code"]


def test_it_is_ready_when_both_servers_are_up(stack: Stack) -> None:
    assert wait_for_status(200, lambda: httpx.get(f"{stack.url}/readyz")).json() == {
        "webhooks": {"taken": True, "reason": None},
        "redis": "ok",
        "postgres": "ok",
    }
    assert httpx.get(f"{stack.url}/").json()["links"]["openapi"] == "/openapi.json"


def test_a_flat_command_returns_its_response(stack: Stack, session_id: str) -> None:
    answer = stack.client.post("/v1/commands/retrieve_memory", json={"session_id": session_id, "key": "db"})
    assert answer.status_code == 200
    assert answer.json()["data"]["memory"]["revision"] == 2
    missing = stack.client.post("/v1/commands/get_task", json={"session_id": session_id, "task_id": "t2"})
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "task_not_found"

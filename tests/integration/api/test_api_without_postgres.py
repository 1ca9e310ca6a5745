"""The public app while Postgres is down: it accepts webhooks as ever, and refuses reads at once."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import psutil
import pytest

from local.servers.embedded import EmbeddedServer
from tests.support.processes.serving import Stopwatch, wait_for_status
from tests.support.processes.stack import Stack, new_id, new_stack, wait_for
from tests.support.servers import running_postgres

READY = {"webhooks": {"taken": True, "reason": None}, "redis": "ok", "postgres": "unavailable"}


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="module")
def stack(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with new_stack(server, tmp_path_factory.mktemp("down"), database_url=server.url) as stack:
        yield stack


def test_webhooks_are_accepted_and_reads_refused_while_postgres_is_down(stack: Stack, server: EmbeddedServer) -> None:
    session_id = new_id()
    before = stack.send("create_session", session_id, title="Down")["delivery_id"]
    server.pause()
    try:
        watch = Stopwatch()
        accepted = [stack.post("store_memory", session_id, key="k", content=n)["delivery_id"] for n in range(20)]
        assert watch.seconds < 5
        pending = stack.client.post(
            "/v1/commands/retrieve_memory?wait=0.3", json={"session_id": session_id, "key": "k"}
        )
        assert (pending.status_code, pending.json()["status"]) == (202, "pending")
        for path in (f"/v1/sessions/{session_id}", "/v1/tasks", f"/v1/sessions/{session_id}/events", "/v1/deliveries"):
            answer = stack.client.get(path)
            assert answer.status_code == 503, path
            assert answer.json()["error"]["code"] == "unavailable"
            assert answer.json()["error"]["retryable"] is True
            assert int(answer.headers["retry-after"]) > 0
        for delivery_id in accepted:
            delivery = stack.client.get(f"/v1/deliveries/{delivery_id}").json()
            assert (delivery["status"], delivery["session_id"]) == ("accepted", session_id)
        assert stack.client.get(f"/v1/deliveries/{before}").status_code == 503
        assert stack.client.get("/v1/deliveries/never-sent").status_code == 503
        ready = httpx.get(f"{stack.url}/readyz")
        assert (ready.status_code, ready.json()) == (200, READY)
        assert watch.seconds < 15
    finally:
        server.restart()
    stack.wait_until_drained()
    memory = wait_for_status(200, lambda: stack.client.get(f"/v1/sessions/{session_id}/memories/k")).json()
    assert (memory["content"], memory["revision"]) == (19, 20)
    for delivery_id in accepted:
        assert stack.client.get(f"/v1/deliveries/{delivery_id}").json()["status"] == "applied"


def test_a_postgres_that_hangs_does_not_slow_webhooks_down(stack: Stack, server: EmbeddedServer) -> None:
    session_id = new_id()
    stack.send("create_session", session_id, title="Hangs")
    stack.client.get(f"/v1/sessions/{session_id}")
    main = psutil.Process(server.pid)
    processes = [main, *main.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        with stack.new_client() as other:
            watch = Stopwatch()
            for number in range(20):
                stack.post("store_memory", session_id, key="k", content=number)
            assert watch.seconds < 3
            assert httpx.get(f"{stack.url}/healthz").status_code == 200
            assert other.get("/readyz").json() == READY
            assert watch.seconds < 8
    finally:
        for process in processes:
            process.resume()
    wait_for(
        lambda: stack.client.get(f"/v1/sessions/{session_id}/memories/k").json().get("revision") == 20, what="applied"
    )

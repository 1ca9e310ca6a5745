"""The embedder process: it embeds what is stored, is restarted when it dies, and says why if it cannot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from local.servers.embedded import EmbeddedServer
from tests.support.processes.stack import Stack, new_stack, wait_for

TEXTS = 150
"""More than two batches."""


@pytest.fixture(scope="module")
def stack(postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with new_stack(postgres, tmp_path_factory.mktemp("stack"), workers=1, EMBEDDINGS="on") as stack:
        yield stack


def embedder(stack: Stack) -> psutil.Process:
    def found() -> psutil.Process | None:
        for child in psutil.Process(stack.pid("worker")).children():
            with suppress(psutil.Error):  # The process may be ending.
                if child.name().startswith("embedder"):
                    return child
        return None

    process = wait_for(found, what="an embedder")
    assert process is not None
    return process


def remember(stack: Stack, count: int) -> None:
    stack.client.post("/v1/commands/create_session", json={"session_id": "walk", "title": "Walk"}).raise_for_status()
    for start in range(0, count, 50):
        commands = [
            {
                "command": "store_memory",
                "data": {"key": f"m{number}", "type": "note", "content": f"Plant number {number} needs water"},
            }
            for number in range(start, start + 50)
        ]
        body = {"session_id": "walk", "commands": commands}
        stack.client.post("/v1/commands/batch?wait=20", json=body).raise_for_status()


def search(stack: Stack, q: str) -> dict[str, object]:
    answer = stack.client.get("/v1/search", params={"q": q})
    answer.raise_for_status()
    found: dict[str, object] = answer.json()
    return found


def test_stored_texts_are_found_by_meaning_though_the_embedder_was_killed(stack: Stack) -> None:
    remember(stack, TEXTS)
    process = embedder(stack)
    assert process.nice() == 19
    process.kill()
    wait_for(lambda: "Loaded the model" in stack.log("api"), seconds=60, what="the model loaded before any search")
    done = wait_for(
        lambda: (found := search(stack, "irrigate")) and found["method"] == "hybrid" and "not_embedded" not in found,
        seconds=60,
        what="all texts embedded",
        longest_pause_seconds=0.5,
    )
    assert done
    assert embedder(stack).pid != process.pid
    found = search(stack, "What must be irrigated?")
    assert found["method"] == "hybrid"
    assert found["items"]
    status = stack.client.get("/v1/status").json()["postgres"]["search"]
    assert (status["method"], status["not_embedded"], status["reason"]) == ("hybrid", 0, None)
    assert status["is_loading"] is False
    sent = stack.client.post("/v1/commands/search", json={"q": "What must be irrigated?"}).json()["data"]
    assert sent["method"] == "hybrid", "The relay repeats what the worker, without a loaded model, found by words."
    assert sent["hits"]


def test_a_single_new_text_is_embedded_within_seconds(stack: Stack) -> None:
    embedder(stack)
    stack.client.post("/v1/commands/create_session", json={"session_id": "trip", "title": "Trip"}).raise_for_status()
    body = {"session_id": "trip", "key": "ship", "type": "note", "content": "The ferry to Corsica leaves at noon"}
    stack.client.post("/v1/commands/store_memory?wait=20", json=body).raise_for_status()
    hits = wait_for(
        lambda: [hit for hit in search(stack, "When does the boat depart?")["items"] if hit.get("key") == "ship"],  # type: ignore[attr-defined]
        seconds=60,
        what="a hit by meaning",
    )
    assert hits[0]["match"] == "meaning"

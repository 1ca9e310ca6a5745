"""Importing a session over HTTP: a valid document completely, and nothing of an invalid one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from sqlalchemy import Engine, delete

from api.sessions.imports import MAX_DOCUMENT_BYTES
from models.settings import read_settings
from models.tables import SESSIONS
from sessions.files.backend import FilesBackend
from tests.support.processes.serving import Serving

SESSION = "imported"


@pytest.fixture(scope="module")
def api(database_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """The public app."""
    serving = Serving("api", tmp_path_factory.mktemp("api"), DATABASE_URL=database_url, REDIS_URL=redis_url)
    yield serving
    serving.close()


@pytest.fixture
def document(request: pytest.FixtureRequest, engine: Engine, tmp_path: Path) -> Iterator[bytes]:
    """A session of another store, with so many words in each piece of conversation, by default few."""
    words = getattr(request, "param", 10)
    store = FilesBackend(read_settings({"DATA_DIR": str(tmp_path)}))
    store.send("create_session", {"title": "From elsewhere"}, session_id=SESSION)
    store.send("store_memory", {"key": "plan", "content": {"z": 1e23, "a": [1]}}, session_id=SESSION)
    for number in range(12):
        chunk = {"chunk_id": f"c{number}", "content": f"{number} " + "words-in-between " * words}
        store.send("conversation_chunk", chunk, session_id=SESSION)
    yield b"".join(store.export(SESSION, format="json"))
    with engine.begin() as connection:
        connection.execute(delete(SESSIONS).where(SESSIONS.c.session_id == SESSION))


def take(api: Serving, content: bytes, **headers: str) -> httpx.Response:
    return api.post(content, "/v1/import", **headers)


@pytest.mark.parametrize("document", [5_500], indirect=True)
def test_a_document_larger_than_any_webhook_is_imported_once(api: Serving, document: bytes) -> None:
    assert len(document) > 1_048_576
    marked = {"Content-Type": "application/json, application/json"}
    answers = [take(api, document), take(api, b"\xef\xbb\xbf" + document, **marked)]
    assert [(answer.status_code, answer.json()) for answer in answers] == [
        (200, {"session_id": SESSION, "created": True}),
        (200, {"session_id": SESSION, "created": False}),
    ]
    assert api.client.get(f"/v1/sessions/{SESSION}/export").content == document
    [hit] = api.client.get(f"/v1/search?q=plan&session_id={SESSION}").json()["items"]
    assert hit["key"] == "plan"
    events = api.client.get(f"/v1/sessions/{SESSION}/events").json()["items"]
    assert [event["event"] for event in events[:3]] == ["create_session", "store_memory", "conversation_chunk"]


def test_another_session_under_the_id_is_a_conflict(api: Serving, document: bytes) -> None:
    assert take(api, document).status_code == 200
    answer = take(api, document.replace(b"From elsewhere", b"From nowhere"))
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["field"]) == (409, "session_exists", "session.session_id")
    assert api.client.get(f"/v1/sessions/{SESSION}").json()["title"] == "From elsewhere"


def test_an_invalid_document_is_refused_with_the_field(api: Serving, document: bytes) -> None:
    answer = take(api, document.replace(b'"chunk_id":"c7"', b'"chunk_id":"c6"'))
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, "chunks[7].chunk_id")
    assert take(api, document[:-3]).status_code == 400
    assert take(api, b"").status_code == 400
    assert take(api, document, **{"Content-Encoding": "gzip"}).status_code == 415
    assert take(api, document, **{"Content-Type": "text/csv"}).status_code == 415
    assert api.client.post("/v1/import?x=1", content=document).status_code == 422
    assert api.client.get(f"/v1/sessions/{SESSION}").status_code == 404


def test_a_document_that_is_too_large_is_refused_before_it_is_read(api: Serving) -> None:
    head = f"POST /v1/import HTTP/1.1\r\nHost: x\r\nX-API-Key: {api.client.headers['X-API-Key']}\r\n"
    answer = api.exchange(f"{head}Content-Length: {MAX_DOCUMENT_BYTES + 1}\r\nConnection: close\r\n\r\n".encode())
    assert b" 413 " in answer.splitlines()[0]
    assert msgspec.json.decode(answer.split(b"\r\n\r\n", 1)[1])["error"]["code"] == "too_large"

"""Task updates of each store, and their recipients: each source until get_task has shown it the task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import pytest

from models.settings import read_settings
from sessions.backend import Backend
from sessions.files.backend import FilesBackend
from sessions.postgres.backend import PostgresBackend
from tests.support.stores.sending import SESSION, export, send

TITLES = {"s1": "Bike rental", "s2": "x" * 200, "s3": "Summer trip", "s4": "Garden", "s5": "Old"}
ChatOf = Callable[[str], Backend]


@pytest.fixture(params=["in_postgres", "in_files"])
def chat_of(request: pytest.FixtureRequest) -> Iterator[ChatOf]:
    """Opens the same store for each source."""
    request.getfixturevalue(request.param)
    opened: list[Backend] = []

    def open_store(source: str) -> Backend:
        if request.param == "in_files":
            data_dir: Path = request.getfixturevalue("data_dir")
            opened.append(FilesBackend(read_settings({"DATA_DIR": str(data_dir)}), source=source))
        else:
            url: str = request.getfixturevalue("store_url")
            opened.append(PostgresBackend(read_settings({"DATABASE_URL": url}), source=source))
        return opened[-1]

    yield open_store
    for backend in opened:
        backend.close()


def change(backend: Backend, session_id: str, *, age: timedelta = timedelta(), **fields: Any) -> None:
    """Change all tasks of a session as their agents would, by a document."""
    document = msgspec.json.decode(export(backend, session_id))
    at = (datetime.now(UTC) - age).isoformat()
    completed: dict[str, Any] = {
        "status": "completed",
        "updated_at": at,
        "finished_at": at,
        "shown_at": None,
        "seen_by": [],
    }
    document["tasks"] = [task | completed | fields for task in document["tasks"]]
    bring_back(backend, session_id, document)


def bring_back(backend: Backend, session_id: str, document: Any) -> None:
    send(backend, "delete_session", session_id, confirm=session_id)
    assert backend.import_document(BytesIO(msgspec.json.encode(document))).created


def hear(backend: Backend, session_id: str = SESSION) -> list[dict[str, Any]]:
    updates: list[dict[str, Any]] = backend.send("list_memories", {}, session_id=session_id).get("updates", [])
    return updates


def brief(updates: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    return [(update.get("task_id", update["status"]), update.get("seen", False)) for update in updates]


def delegate(backend: Backend, session_id: str = SESSION, *, count: int = 1) -> None:
    send(backend, "create_session", session_id, title=TITLES.get(session_id, "Talk"))
    for number in range(count):
        send(backend, "delegate_task", session_id, task_id=f"t{number}", description=f"Compare {number}")


def test_a_source_gets_updates_until_it_has_read_the_task(chat_of: ChatOf) -> None:
    phone, laptop = chat_of("phone"), chat_of("laptop")
    delegate(phone)
    change(phone, SESSION)
    assert brief(hear(phone)) == brief(hear(laptop)) == [("t0", False)]
    send(phone, "get_task", task_id="t0")
    assert brief(hear(phone)) == [("t0", True)]
    assert brief(hear(laptop)) == [("t0", False)]
    send(laptop, "get_task", task_id="t0")
    send(laptop, "get_task", task_id="t0")
    assert brief(hear(phone)) == brief(hear(laptop)) == [("t0", True)]
    assert msgspec.json.decode(export(phone))["tasks"][0]["seen_by"] == ["phone", "laptop"]
    change(phone, SESSION)
    assert brief(hear(phone)) == brief(hear(laptop)) == [("t0", False)]


def test_unseen_updates_come_before_seen_ones_up_to_five(chat_of: ChatOf) -> None:
    phone = chat_of("phone")
    delegate(phone, count=7)
    change(phone, SESSION)
    for number in (6, 5, 4, 3):
        send(phone, "get_task", task_id=f"t{number}")
    assert brief(hear(phone)) == [("t2", False), ("t1", False), ("t0", False), ("t6", True), ("t5", True)]


def test_seen_updates_are_repeated_for_a_day_and_unseen_ones_for_a_week(chat_of: ChatOf) -> None:
    phone, laptop = chat_of("phone"), chat_of("laptop")
    delegate(phone)
    for age, seen, unseen in ((23, [("t0", True)], [("t0", False)]), (25, [], [("t0", False)]), (24 * 8, [], [])):
        change(phone, SESSION, age=timedelta(hours=age))
        assert brief(hear(phone)) == [("t0", False)]
        send(phone, "get_task", task_id="t0")
        assert (brief(hear(phone)), brief(hear(laptop))) == (seen, unseen), age


def test_the_latest_32_sources_are_remembered(chat_of: ChatOf) -> None:
    phone = chat_of("phone")
    delegate(phone)
    change(phone, SESSION, shown_at="2999-01-01T00:00:00Z", seen_by=[f"chat {number}" for number in range(32)])
    send(phone, "get_task", task_id="t0")
    [task] = msgspec.json.decode(export(phone))["tasks"]
    assert task["seen_by"] == [*(f"chat {number}" for number in range(1, 32)), "phone"]


def test_a_document_without_sources_is_imported_with_an_empty_list(chat_of: ChatOf) -> None:
    phone = chat_of("phone")
    delegate(phone)
    send(phone, "get_task", task_id="t0")
    document = msgspec.json.decode(export(phone))
    assert document["tasks"][0].pop("seen_by") == ["phone"]
    bring_back(phone, SESSION, document)
    assert msgspec.json.decode(export(phone))["tasks"][0]["seen_by"] == []


def test_tasks_delegated_in_other_sessions_are_one_line_at_the_end(chat_of: ChatOf) -> None:
    phone, laptop = chat_of("phone"), chat_of("laptop")
    for session_id in TITLES:
        delegate(phone, session_id, count=2)
        change(phone, session_id, age=timedelta(hours=25 if session_id == "s5" else 1))
    question = [{"question": "Why?", "asked_at": "2026-01-01T00:00:00Z"}]
    change(phone, "s1", status="input_required", finished_at=None, questions=question)
    delegate(phone)
    change(phone, SESSION)
    told = hear(phone)
    assert brief(told) == [("t0", False), ("elsewhere", False)]
    line = told[-1]
    assert line["message"].startswith('2 tasks ask in "Bike rental", 2 finished in "Garden", 2 finished in "Summer')
    assert line["message"].endswith(" and 2 more.")
    assert len(line["message"]) <= 200
    assert line["session_ids"] == ["s1", "s4", "s3"]
    assert brief(hear(laptop)) == [("t0", False)]
    for session_id in ("s1", "s2", "s3", "s4"):
        for number in range(2):
            send(phone, "get_task", session_id, task_id=f"t{number}")
    assert brief(hear(phone)) == [("t0", False)]

"""Titles of tasks: given by the delegator, or else the first line of the description."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import msgspec
import pytest

from models.errors import Conflict, Invalid
from sessions.backend import Backend
from sessions.files.backend import FilesBackend
from sessions.postgres.backend import PostgresBackend
from tests.support.stores.sending import SESSION, export, items, refusal, send

LONG = "Compare the prices of heat pumps\n\nIn Graz and Linz, for 8 kW, with installation."


def delegate(backend: Backend, description: str = LONG, **data: Any) -> dict[str, Any]:
    return send(backend, "delegate_task", **{"task_id": "t1", "description": description, **data})


def test_a_title_is_shown_wherever_its_task_is(walk: Backend) -> None:
    message = walk.send(
        "delegate_task", {"task_id": "t1", "description": LONG, "title": "Heat pumps"}, session_id=SESSION
    )["message"]
    assert message == 'Delegated "Heat pumps" to any agent for general. No agent is online yet.'
    shown = walk.send("get_task", {"task_id": "t1"}, session_id=SESSION)
    assert shown["message"] == '"Heat pumps" is waiting for an agent.'
    assert (shown["data"]["task"]["title"], shown["data"]["task"]["description"]) == ("Heat pumps", LONG)
    assert [item["title"] for item in items(walk, "list_tasks")] == ["Heat pumps"]
    assert [item["title"] for item in send(walk, "resume_bundle")["tasks"]] == ["Heat pumps"]
    refused = refusal(walk, "complete_session")
    assert '"Heat pumps"' in refused.message
    described: Any = (refused.data or {})["open_tasks"]
    assert [task["title"] for task in described] == ["Heat pumps"]
    delegate(walk, "Then install it", task_id="t2", depends_on=["t1"])
    assert walk.send("cancel_task", {"task_id": "t1"}, session_id=SESSION)["message"] == 'Cancelled "Heat pumps".'
    failed = send(walk, "get_task", task_id="t2")["task"]
    assert failed["error"] == 'It depends on "Heat pumps", which was cancelled.'
    markdown = b"".join(walk.export(SESSION, format="markdown")).decode()
    assert "- [ ] Heat pumps (cancelled)\n\n  Compare the prices of heat pumps\n\n  In Graz" in markdown
    assert "- [ ] Then install it (failed)\n\n  It depends on" in markdown


@pytest.mark.parametrize(
    ("description", "title"),
    [
        (LONG, "Compare the prices of heat pumps"),
        ("\n \t\r\n  Compare\tprices\x01now  \nmore", "Compare prices now"),
        ("x" * 300, "x" * 79 + "…"),
        ("数据 " * 100, ("数据 " * 100)[:79].rstrip() + "…"),
        ("\x01\u2028\x02", "Untitled"),
        ("Cafe\u0301", "Café"),
    ],
)
def test_without_a_title_the_first_line_of_the_description_is_shown(
    walk: Backend, description: str, title: str
) -> None:
    delegate(walk, description)
    task = send(walk, "get_task", task_id="t1")["task"]
    assert (task["title"], task["description"]) == (title, description)
    document = export(walk)
    send(walk, "delete_session", confirm=SESSION)
    assert walk.import_document(BytesIO(document)).created


def test_a_long_title_is_shown_whole_in_lists_and_cut_in_sentences(walk: Backend) -> None:
    delegate(walk, title="T" * 200)
    assert [item["title"] for item in items(walk, "list_tasks")] == ["T" * 200]
    message = walk.send("get_task", {"task_id": "t1"}, session_id=SESSION)["message"]
    assert message == f'"{"T" * 79}…" is waiting for an agent.'


@pytest.mark.parametrize("title", ["T" * 201, "two\nlines"])
def test_an_unfit_title_is_refused(walk: Backend, title: str) -> None:
    error = refusal(walk, "delegate_task", description="Do it", title=title)
    assert isinstance(error, Invalid)
    assert error.field == "data.title"


def test_another_title_under_an_id_is_a_conflict_and_none_is_a_repeat(walk: Backend) -> None:
    delegate(walk, title="Heat pumps")
    assert delegate(walk, title="Heat pumps")["created"] is False
    assert delegate(walk)["created"] is False
    error = refusal(walk, "delegate_task", task_id="t1", description=LONG, title="Solar roof")
    assert isinstance(error, Conflict)
    assert error.message == "Another task already has this id: Heat pumps"


def test_a_title_goes_through_both_stores(in_files: FilesBackend, in_postgres: PostgresBackend) -> None:
    send(in_files, "create_session", title="Walk")
    delegate(in_files, title="Heat pumps")
    document = export(in_files)
    assert in_postgres.import_document(BytesIO(document)).created
    assert export(in_postgres) == document
    assert [item["title"] for item in items(in_postgres, "list_tasks")] == ["Heat pumps"]


def test_a_task_of_an_earlier_version_has_the_first_line_as_its_title(walk: Backend) -> None:
    delegate(walk, "\n\n" + LONG)
    document = msgspec.json.decode(export(walk))
    del document["tasks"][0]["title"]
    send(walk, "delete_session", confirm=SESSION)
    assert walk.import_document(BytesIO(msgspec.json.encode(document))).created
    assert [item["title"] for item in items(walk, "list_tasks")] == ["Compare the prices of heat pumps"]
    delegate(walk, "Then install it", task_id="t2", depends_on=["t1"])
    send(walk, "cancel_task", task_id="t1")
    failed = send(walk, "get_task", task_id="t2")["task"]
    assert failed["error"] == 'It depends on "Compare the prices of heat pumps", which was cancelled.'

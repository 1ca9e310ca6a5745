"""Exports: the whole session, unchanged or as Markdown."""

from __future__ import annotations

import msgspec
import pytest
from sqlalchemy import Connection

from models.errors import NotFound
from sessions.documents.document import LISTS, ArtifactItem, ChunkItem, EventItem, MemoryItem, SessionItem
from sessions.postgres.reads.read_commands import export_markdown, export_session
from tests.support.stores.rows import Rows


@pytest.fixture
def walk(connection: Connection) -> Rows:
    rows = Rows(connection, "export-walk", title="Morning walk", participants=["Ada", "Jörg"], context="On foot")
    rows.memory("plan", '{"z": 1e23,  "a": -0.0}', "decision", revision=3, tags=["db"])
    rows.revision("plan", 2, '"second"')
    rows.revision("plan", 1, '"first"')
    rows.memory("Älter", '"a note"')
    rows.memory("todo", '{"what": "Call", "who": "Jörg"}', "action_item", status="done")
    rows.chunk("c1", "Ada: hello", metadata='{"m":  1}')
    rows.task("t1", "Compare prices", status="completed", output='"cheap"', claim_token="secret")
    rows.task("t2", "Write it down", depends_on=["t1"])
    rows.event("add_artifact", delivery_id="d1", message="Added.", data='{"z":  1, "a": 2}')
    rows.event("store_memory", status="rejected", source="other")
    rows.artifact("a1", '"print(1)\\n```"', name="main.py", type="code", format="python", task_id="t1")
    return rows


def test_an_export_is_the_whole_session_verbatim(walk: Rows) -> None:
    document = b"".join(export_session(walk.connection, "export-walk"))
    assert b'"content":{"z": 1e23,  "a": -0.0}' in document
    assert b'"metadata":{"m":  1}' in document
    assert b"secret" not in document
    fields = msgspec.json.decode(document, type=dict[str, msgspec.Raw])
    assert list(fields) == [
        *("format", "session", "chunks", "memories", "tasks", "artifacts", "artifact_revisions", "events")
    ]
    assert msgspec.json.decode(fields["session"], type=SessionItem).participants == ["Ada", "Jörg"]
    assert msgspec.json.decode(fields["chunks"], type=list[ChunkItem])[0].content == "Ada: hello"
    assert msgspec.json.decode(fields["artifacts"], type=list[ArtifactItem])[0].task_id == "t1"
    memories = msgspec.json.decode(fields["memories"], type=list[MemoryItem])
    assert [memory.key for memory in memories] == ["plan", "Älter", "todo"]
    events = msgspec.json.decode(fields["events"], type=list[EventItem])
    assert [(event.event, event.status, event.delivery_id, event.source) for event in events] == [
        ("add_artifact", "applied", "d1", "test"),
        ("store_memory", "rejected", None, "other"),
    ]
    assert b'"data":{"z":  1, "a": 2}' in document
    revisions = msgspec.json.decode(fields["memories"])[0]["revisions"]
    assert [(revision["revision"], revision["content"]) for revision in revisions] == [(1, "first"), (2, "second")]
    tasks = msgspec.json.decode(fields["tasks"])
    assert [(task["task_id"], task["output"]) for task in tasks] == [("t1", "cheap"), ("t2", None)]
    assert document == b"".join(export_session(walk.connection, "export-walk"))


def test_an_empty_session_can_be_exported(connection: Connection) -> None:
    Rows(connection, "export-empty")
    document = msgspec.json.decode(b"".join(export_session(connection, "export-empty")))
    assert document["session"]["session_id"] == "export-empty"
    assert [document[name] for name in LISTS] == [[]] * len(LISTS)


def test_a_session_can_be_exported_as_markdown(walk: Rows) -> None:
    document = "".join(export_markdown(walk.connection, "export-walk"))
    assert document.startswith("# Morning walk\n\nActive. Started 2026-10-31, last active 2026-10-31.")
    for part in (
        "With Ada, Jörg.\n\nOn foot\n",
        "## Decisions\n\n- 1e+23 (#db)\n  - a: -0.0\n",
        "## Action items\n\n- [x] Call\n  - who: Jörg\n",
        "## Notes\n\n- a note\n",
        "## Tasks\n\n- [x] Compare prices (completed)\n\n  cheap\n- [ ] Write it down (pending)\n",
        "### main.py\n\n````python\nprint(1)\n```\n````\n",
        "### 2026-10-31T12:00:07Z\n\nAda: hello\n",
    ):
        assert part in document
    headings = [line for line in document.splitlines() if line.startswith("## ")]
    assert headings == ["## Decisions", "## Action items", "## Notes", "## Tasks", "## Artifacts", "## Conversation"]


@pytest.mark.parametrize("export", [export_session, export_markdown])
def test_an_unknown_session_is_refused_before_the_first_part(connection: Connection, export: object) -> None:
    assert callable(export)
    with pytest.raises(NotFound):
        export(connection, "export-none")

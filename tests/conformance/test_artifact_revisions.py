"""Artifacts with revisions: new content under an id is a revision, and the old ones stay readable."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from models.errors import Conflict, Invalid, NotFound
from sessions.backend import Backend
from sessions.files.backend import FilesBackend
from sessions.files.store_folder import SESSION as SESSION_FILE
from sessions.postgres.backend import PostgresBackend
from tests.support.stores.sending import SESSION, export, items, refusal, send

NEVER_REVISED = {"revision", "revised_at"}


def add(backend: Backend, content: Any, artifact_id: str = "offer", **data: Any) -> dict[str, Any]:
    return send(backend, "add_artifact", artifact_id=artifact_id, content=content, **{"name": "Offer", **data})


def get(backend: Backend, **data: Any) -> dict[str, Any]:
    artifact: dict[str, Any] = send(backend, "get_artifact", **{"artifact_id": "offer", **data})["artifact"]
    return artifact


def revisions(backend: Backend, **data: Any) -> list[dict[str, Any]]:
    return items(backend, "list_artifacts", SESSION, artifact_id="offer", **data)


def test_new_content_under_an_id_is_a_revision_and_the_old_ones_stay_readable(walk: Backend) -> None:
    first = add(walk, "24 panels", type="report", format="markdown", metadata={"m": 1})
    assert first == {"artifact_id": "offer", "name": "Offer", "type": "report", "revision": 1, "created": True}
    second = add(walk, Raw(b'{"panels":  26}'), name="Better offer")
    assert (second["revision"], second["created"], second["outcome"]) == (2, False, "revised")
    latest, old = get(walk), get(walk, revision=1)
    assert (latest["revision"], latest["name"], latest["content"]) == (2, "Better offer", {"panels": 26})
    assert (old["revision"], old["name"], old["content"]) == (1, "Offer", "24 panels")
    assert get(walk, revision=2) == latest
    assert old["created_at"] == old["updated_at"] == latest["created_at"] < latest["updated_at"]
    [listed] = items(walk, "list_artifacts", SESSION)
    assert (listed["revision"], listed["updated_at"]) == (2, latest["updated_at"])


def test_an_omitted_type_format_and_task_are_kept(walk: Backend) -> None:
    send(walk, "delegate_task", task_id="t1", description="Ask for offers")
    add(walk, "24 panels", type="report", format="markdown", metadata={"m": 1}, task_id="t1")
    add(walk, "26 panels")
    kept = get(walk)
    assert [kept[name] for name in ("type", "format", "task_id")] == ["report", "markdown", "t1"]
    assert "metadata" not in kept, "It may describe the old content."
    add(walk, "26 panels", type="code", format="text", metadata={"m": 2})
    assert [get(walk)[name] for name in ("type", "format", "metadata")] == ["code", "text", {"m": 2}]


def test_small_commands_do_not_make_large_revisions(walk: Backend) -> None:
    add(walk, "x", metadata={"large": "x" * 100_000})
    commands = [
        {"command": "add_artifact", "data": {"artifact_id": "offer", "name": f"Offer {number}", "content": "x"}}
        for number in range(100)
    ]
    send(walk, "batch", commands=commands)
    assert get(walk)["revision"] == 101
    assert len(export(walk)) < 300_000


@pytest.mark.parametrize("again", [{}, {"type": "report"}, {"content": Raw(b'[1,   2.0, "x"]')}])
def test_the_same_content_again_is_no_revision(walk: Backend, again: dict[str, Any]) -> None:
    add(walk, Raw(b'[1,2.0,"x"]'), type="report", metadata={"m": 1})
    before = export(walk)
    repeated = add(walk, **{"content": Raw(b'[1,2.0,"x"]'), **again})
    assert (repeated["revision"], repeated["created"]) == (1, False)
    assert "outcome" not in repeated
    assert msgspec.json.decode(export(walk))["artifacts"] == msgspec.json.decode(before)["artifacts"]
    assert len(revisions(walk)) == 1


def test_revisions_are_listed_with_their_times_and_sizes_the_latest_first(walk: Backend) -> None:
    for number in range(1, 6):
        add(walk, "ä" * number)
    add(walk, [1, 2], "another")
    found = revisions(walk, limit=2)
    assert [(item["revision"], item["total_characters"]) for item in found] == [(n, n) for n in (5, 4, 3, 2, 1)]
    times = [item["updated_at"] for item in found]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == 5
    assert [item["revision"] for item in revisions(walk, since=times[1])] == [5, 4]
    assert "content" not in found[0]
    unknown = refusal(walk, "list_artifacts", artifact_id="ofer")
    assert (unknown.code, "offer" in (unknown.hint or "")) == ("artifact_not_found", True)
    needs_session = refusal(walk, "list_artifacts", None, artifact_id="offer")
    assert (needs_session.code, needs_session.field) == ("missing_field", "session_id")


def test_an_unknown_revision_is_named(walk: Backend) -> None:
    add(walk, "one")
    error = refusal(walk, "get_artifact", artifact_id="offer", revision=2)
    assert isinstance(error, NotFound)
    assert error.message == "'offer' does not have revision 2."


def test_a_revised_artifact_is_the_latest_again(walk: Backend) -> None:
    for name in ("offer", "map", "list"):
        add(walk, name, name)
    before = get(walk)["updated_at"]
    add(walk, "another offer")
    assert [item["artifact_id"] for item in items(walk, "list_artifacts", limit=1)] == ["offer", "list", "map"]
    since = get(walk)["updated_at"]
    assert before < since
    assert [item["artifact_id"] for item in items(walk, "list_artifacts", since=since)] == ["offer"]
    assert [item["artifact_id"] for item in send(walk, "resume_bundle")["artifacts"]] == ["offer", "list", "map"]
    assert send(walk, "get_session_summary")["stats"]["artifacts"] == 3


def test_a_revision_is_recent_activity(walk: Backend) -> None:
    add(walk, "one")
    add(walk, "two")
    revised_at = get(walk)["updated_at"]
    for period, event in (({}, "changed"), ({"since": revised_at}, "changed"), ({"until": revised_at}, "created")):
        listed = [item for item in items(walk, "recent_activity", **period) if item["kind"] == "artifact"]
        assert [(item["artifact_id"], item["event"], item["excerpt"]) for item in listed] == [("offer", event, "two")]


def test_a_condition_on_the_revision_guards_against_lost_changes(walk: Backend) -> None:
    assert add(walk, "one", if_revision=0)["revision"] == 1
    assert add(walk, "two", if_revision=1)["revision"] == 2
    assert add(walk, "two", if_revision=1)["revision"] == 2, "A repeat of the write that made it."
    error = refusal(walk, "add_artifact", artifact_id="offer", name="Offer", content="three", if_revision=1)
    assert isinstance(error, Conflict)
    assert (error.code, error.field, error.expected) == ("revision_conflict", "data.if_revision", "2")
    assert get(walk)["content"] == "two"


def test_several_revisions_in_one_batch_are_all_kept(walk: Backend) -> None:
    commands = [
        {"command": "add_artifact", "data": {"artifact_id": "offer", "name": "Offer", "content": content}}
        for content in ("one", "two", "two", "three")
    ]
    answers = send(walk, "batch", commands=commands)["results"]
    assert [answer["data"]["revision"] for answer in answers] == [1, 2, 2, 3]
    assert [get(walk, revision=number)["content"] for number in (1, 2, 3)] == ["one", "two", "three"]


def test_a_delivered_revision_takes_effect_once_and_the_journal_names_it(walk: Backend) -> None:
    add(walk, "one")
    data = {"artifact_id": "offer", "name": "Offer", "content": "two"}
    answers = [walk.send("add_artifact", data, session_id=SESSION, delivery_id="d1") for _ in range(2)]
    assert answers[0]["data"] == answers[1]["data"]
    add(walk, "three")
    walk.send("add_artifact", data, session_id=SESSION, delivery_id="d1")
    assert get(walk)["content"] == "three"
    journal = walk.events(SESSION, after=None, limit=10, wait_seconds=0).items
    told = [(event["message"], event["data"]["revision"]) for event in journal if event["event"] == "add_artifact"]
    assert told == [
        ('Added "Offer".', 1),
        ('Stored revision 2 of "Offer".', 2),
        ('Stored revision 3 of "Offer".', 3),
    ]


@pytest.mark.parametrize("revision", [None, 1, 2])
def test_each_revision_is_read_in_pieces(walk: Backend, revision: int | None) -> None:
    texts = {1: "old 😀 " * 600, 2: "new 数据 " * 500}
    for text in texts.values():
        add(walk, text)
    wanted = {} if revision is None else {"revision": revision}
    read, offset = "", 0
    while True:
        piece = get(walk, max_characters=1_000, offset=offset, **wanted)
        assert piece["total_characters"] == len(texts[revision or 2])
        assert piece["revision"] == (revision or 2)
        read += piece["content"]
        if (offset := piece.get("next_offset", 0)) == 0:
            break
    assert read == texts[revision or 2]


def test_deleting_the_session_deletes_all_revisions(walk: Backend) -> None:
    add(walk, "one")
    add(walk, "two")
    send(walk, "delete_session", confirm=SESSION)
    send(walk, "create_session", title="Walk")
    assert refusal(walk, "get_artifact", artifact_id="offer", revision=1).code == "artifact_not_found"
    assert add(walk, "three")["revision"] == 1
    assert [item["revision"] for item in revisions(walk)] == [1]


def test_revisions_go_through_both_stores_unchanged(in_files: FilesBackend, in_postgres: PostgresBackend) -> None:
    send(in_files, "create_session", title="Walk")
    add(in_files, "b", "b", name="Map")
    for content in ("one", Raw(b'{"z":  1.50}'), "three"):
        add(in_files, content, metadata={"m": 1})
    document = export(in_files)
    assert in_postgres.import_document(BytesIO(document)).created
    assert export(in_postgres) == document
    assert not in_postgres.import_document(BytesIO(document)).created
    send(in_files, "delete_session", confirm=SESSION)
    assert in_files.import_document(BytesIO(document)).created
    for store in (in_files, in_postgres):
        assert export(store) == document
        assert get(store, revision=2)["content"] == {"z": 1.5}
        assert add(store, "four")["revision"] == 4
        [line] = [line for line in b"".join(store.export(SESSION, format="markdown")).splitlines() if b"Offer" in line]
        assert line == b"### Offer (revision 4)"


def test_a_document_of_an_earlier_version_is_imported(walk: Backend) -> None:
    add(walk, "one")
    document = msgspec.json.decode(export(walk))
    assert document.pop("artifact_revisions") == []
    [artifact] = document["artifacts"]
    for name in NEVER_REVISED:
        del artifact[name]
    assert not walk.import_document(BytesIO(msgspec.json.encode(document))).created
    send(walk, "delete_session", confirm=SESSION)
    assert walk.import_document(BytesIO(msgspec.json.encode(document))).created
    assert (get(walk)["revision"], get(walk)["content"]) == (1, "one")


def test_a_file_of_an_earlier_version_is_read(in_files: FilesBackend, data_dir: Path) -> None:
    send(in_files, "create_session", title="Walk")
    add(in_files, "one")
    send(in_files, "delegate_task", task_id="t1", description="Ask for offers\n\nby mail")
    [file] = data_dir.rglob(f"*{SESSION_FILE}")
    saved = msgspec.json.decode(file.read_bytes())
    assert saved.pop("artifact_revisions") == []
    for name in NEVER_REVISED:
        del saved["artifacts"][0][name]
    del saved["tasks"][0]["title"]
    file.write_bytes(msgspec.json.encode(saved))
    assert (get(in_files)["revision"], get(in_files)["content"]) == (1, "one")
    assert send(in_files, "get_task", task_id="t1")["task"]["title"] == "Ask for offers"
    assert add(in_files, "two")["revision"] == 2


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("artifact_id", "other", "artifact_id"),
        ("revision", 2, "revision"),
        ("revision", 0, "revision"),
        ("task_id", "t9", "task_id"),
        ("metadata", [], "metadata"),
        ("revised_at", "2026-01-01T00:00:00+02:00", "revised_at"),
    ],
)
def test_an_invalid_revision_is_named_and_nothing_is_imported(
    walk: Backend, field: str, value: Any, named: str
) -> None:
    add(walk, "one")
    add(walk, "two")
    document = msgspec.json.decode(export(walk))
    document["artifact_revisions"][0][field] = value
    send(walk, "delete_session", confirm=SESSION)
    with pytest.raises(Invalid) as refused:
        walk.import_document(BytesIO(msgspec.json.encode(document)))
    assert refused.value.field == f"artifact_revisions[0].{named}"
    assert list(walk.session_ids()) == []

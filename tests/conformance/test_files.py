"""The JSON store on disk: several writers, kills at any moment, and foreign files in its folder."""

from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import pytest

from models.errors import Conflict, NotFound, Unavailable
from models.settings import read_settings
from sessions.files import store_folder as folders
from sessions.files.backend import FilesBackend
from sessions.files.session_file import MOST_DELIVERIES
from sessions.files.store_folder import SESSION as FILE
from sessions.files.store_folder import TOMBSTONE, BrokenFile, Folder
from tests.support.project import IS_LONG, ROOT
from tests.support.stores.sending import SESSION, export, items, refusal, send
from tests.support.stores.writer import write

COUNT = 500 if IS_LONG else 150


def start_writer(data_dir: Path, name: str, count: int = COUNT) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.support.stores.writer", str(data_dir), name, str(count)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def answered(process: subprocess.Popen[str]) -> list[int]:
    """Return the numbers that a process prints in whole lines until it ends."""
    assert process.stdout is not None
    return [int(line) for line in process.stdout if line.endswith("\n")]


def test_killing_one_of_two_writers_loses_no_confirmed_write(in_files: FilesBackend, data_dir: Path) -> None:
    send(in_files, "create_session", title="Written by two")
    killed, other = start_writer(data_dir, "killed"), start_writer(data_dir, "other")
    assert killed.stdout is not None
    told = [int(killed.stdout.readline()) for _ in range(COUNT // 4)]
    killed.kill()
    told += answered(killed)
    assert killed.wait() == -9
    assert answered(other) == list(range(COUNT))
    assert other.wait() == 0
    other.stdout.close() if other.stdout else None
    killed.stdout.close()

    kept = {memory["key"] for memory in items(in_files, "list_memories", SESSION, limit=500)}
    assert {f"other {number}" for number in range(COUNT)} <= kept
    assert {f"killed {number}" for number in told} <= kept
    assert len(kept) - COUNT - len(told) in (0, 1)  # One unconfirmed write may be stored.
    journal = msgspec.json.decode(export(in_files))["events"]
    for name in ("killed", "other"):
        numbers = [int(event["delivery_id"].split("-")[1]) for event in journal if name in (event["delivery_id"] or "")]
        assert numbers == list(range(len(numbers)))

    for number in (*told, len(told), len(told) + 1):
        assert write(in_files, "killed", number)["status"] == "success"
    after = msgspec.json.decode(export(in_files))["events"]
    ids = [event["delivery_id"] for event in after]
    assert len(ids) == len(set(ids)) == 1 + COUNT + len(told) + 2
    assert after[: len(journal)] == journal


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(in_files: FilesBackend, data_dir: Path) -> None:
    send(in_files, "create_session", title="Killed often")
    told = -1
    for after in (1, 2, 5, 9, 14):
        process = start_writer(data_dir, "n", 10_000)
        assert process.stdout is not None
        for _ in range(after):
            told = max(told, int(process.stdout.readline()))
        process.kill()
        told = max(told, *answered(process), -1)
        process.stdout.close()
        process.wait()
        keys = {memory["key"] for memory in items(in_files, "list_memories", SESSION, limit=500)}
        assert {f"n {number}" for number in range(told + 1)} <= keys
    assert send(in_files, "get_session_summary")["stats"]["memories"] in (told + 1, told + 2)


def test_leftovers_of_a_killed_writer_are_cleaned_up(in_files: FilesBackend, data_dir: Path) -> None:
    send(in_files, "create_session", title="x")
    send(in_files, "create_session", "gone", title="x")
    send(in_files, "delete_session", "gone", confirm="gone")
    file = Folder(data_dir).path(SESSION, FILE)
    for left in (file.with_suffix(".tmp"), Folder(data_dir).path("other", ".tmp")):
        left.write_bytes(b'{"format":"sess')
    old = Folder(data_dir).path("gone", TOMBSTONE)
    os.utime(old, (0, 0))
    (file.parent / "notes.tmp").write_text("of somebody")
    assert send(in_files, "get_session_summary")["title"] == "x"
    anew = FilesBackend(read_settings({"DATA_DIR": str(data_dir)}))
    send(anew, "store_memory", content=1)
    assert {path.name for path in file.parent.iterdir()} == {file.name, "notes.tmp"}


def test_all_files_are_private_to_their_owner(in_files: FilesBackend, data_dir: Path) -> None:
    before = os.umask(0)
    try:
        send(in_files, "create_session", title="x")
    finally:
        os.umask(before)
    home = data_dir / "json-store"
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (home, *home.rglob("*"))}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    assert SESSION not in "".join(path.name for path in modes)


def test_reading_creates_no_files(in_files: FilesBackend, data_dir: Path) -> None:
    assert list(in_files.session_ids()) == []
    assert items(in_files, "list_sessions") == []
    assert refusal(in_files, "get_session_summary").code == "session_not_found"
    assert not data_dir.exists()
    send(in_files, "create_session", title="x")
    file = Folder(data_dir).path(SESSION, FILE)
    before = file.stat()
    written = (before.st_ino, before.st_mtime_ns, before.st_size)
    send(in_files, "resume_bundle")
    send(in_files, "search", q="x")
    assert refusal(in_files, "retrieve_memory", key="k").code == "memory_not_found"
    after = file.stat()  # The time of the last access may differ.
    assert (after.st_ino, after.st_mtime_ns, after.st_size) == written


def test_a_refused_command_for_a_missing_session_leaves_no_file(in_files: FilesBackend, data_dir: Path) -> None:
    assert refusal(in_files, "store_memory", content=1).code == "session_not_found"
    assert list((data_dir / "json-store" / "sessions").iterdir()) == []
    with pytest.raises(NotFound):
        in_files.send("store_memory", {"content": 1}, session_id=SESSION, delivery_id="d1")
    assert [path.suffix for path in (data_dir / "json-store" / "sessions").iterdir()] == [TOMBSTONE]


@pytest.fixture
def broken(in_files: FilesBackend, data_dir: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The file of a session, replaced by something else, beside a valid session."""
    for name in (SESSION, "whole"):
        send(in_files, "create_session", name, title=name)
        send(in_files, "store_memory", name, key="k", content="apples")
    file = Folder(data_dir).path(SESSION, FILE)
    whole = file.read_bytes()
    file.unlink()
    match request.param:
        case "truncated":
            file.write_bytes(whole[: len(whole) // 2])
        case "empty":
            file.touch()
        case "foreign":
            file.write_text('{"name": "package", "version": "1.0.0"}')
        case "binary":
            file.write_bytes(bytes(range(256)) * 10)
        case "deep":
            file.write_bytes(b"[" * 100_000)
        case "copied":
            file.write_bytes(Folder(data_dir).path("whole", FILE).read_bytes())
        case "of the future":
            file.write_bytes(whole.replace(b"session-relay/1", b"session-relay/2"))
        case "edited":
            file.write_bytes(whole.replace(b'"active"', b'"open"'))
        case "link":
            (data_dir / "elsewhere").write_bytes(whole)
            file.symlink_to(data_dir / "elsewhere")
        case "dangling link":
            file.symlink_to(data_dir / "nowhere")
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
    yield file
    assert not (data_dir / "nowhere").exists()


KINDS = (
    *("truncated", "empty", "foreign", "binary", "deep", "copied", "of the future", "edited"),
    *("link", "dangling link", "folder", "pipe"),
)


@pytest.mark.parametrize("broken", KINDS, indirect=True)
def test_an_invalid_session_file_is_named_and_the_others_work(
    in_files: FilesBackend, broken: Path, caplog: pytest.LogCaptureFixture
) -> None:
    document = export(in_files, "whole").replace(b'"session_id":"whole"', b'"session_id":"walk"', 1)
    for trying in (
        lambda: in_files.send("store_memory", {"content": 1}, session_id=SESSION),
        lambda: in_files.send("create_session", {"title": "x"}, session_id=SESSION),
        lambda: in_files.send("get_session_summary", {}, session_id=SESSION),
        lambda: export(in_files),
        lambda: in_files.events(SESSION, after=None, limit=1, wait_seconds=0),
        lambda: in_files.import_document(BytesIO(document)),
    ):
        with pytest.raises(BrokenFile) as refused:
            trying()
        assert str(broken) in refused.value.message
    with caplog.at_level(logging.WARNING):
        assert [session["session_id"] for session in items(in_files, "list_sessions")] == ["whole"]
        assert list(in_files.session_ids()) == ["whole"]
        assert [hit["session_id"] for hit in items(in_files, "search", q="apples")] == ["whole"]
        assert [memory["session_id"] for memory in items(in_files, "query_memories")] == ["whole"]
        assert send(in_files, "store_memory", "whole", key="k", content="pears")["revision"] == 2
        assert send(in_files, "resume_bundle", None)["session"]["session_id"] == "whole"
    assert str(broken) in caplog.text


def test_a_folder_in_place_of_a_temporary_file_is_named(in_files: FilesBackend, data_dir: Path) -> None:
    send(in_files, "create_session", title="x")
    draft = Folder(data_dir).path(SESSION, ".tmp")
    draft.mkdir()
    with pytest.raises(Unavailable, match=r"\.tmp cannot be used"):
        send(in_files, "store_memory", content=1)
    draft.rmdir()
    (data_dir / "elsewhere").write_text("mine")
    draft.symlink_to(data_dir / "elsewhere")
    send(in_files, "store_memory", content=1)
    assert (data_dir / "elsewhere").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(in_files: FilesBackend, data_dir: Path) -> None:
    data_dir.mkdir(mode=0o500)
    with pytest.raises(Unavailable, match=str(data_dir)):
        send(in_files, "create_session", title="x")


def test_a_store_path_that_is_a_file_is_named(in_files: FilesBackend, data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "json-store").write_text("a file")
    for trying in (lambda: send(in_files, "create_session", title="x"), lambda: items(in_files, "list_sessions")):
        with pytest.raises(Unavailable, match="json-store"):
            trying()


def test_waiting_for_the_lock_times_out_with_an_error(
    in_files: FilesBackend, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(in_files, "create_session", title="x")
    monkeypatch.setattr(folders, "LOCK_SECONDS", 0.2)
    with Folder(data_dir).lock(SESSION):
        began = time.monotonic()
        with pytest.raises(Unavailable, match="Another process is changing"):
            send(in_files, "store_memory", content=1)
        assert time.monotonic() - began < 2
        assert send(in_files, "get_session_summary")["stats"]["memories"] == 0
    send(in_files, "store_memory", content=1)


def test_threads_of_one_process_do_not_lose_changes(in_files: FilesBackend) -> None:
    send(in_files, "create_session", title="x")

    def write_some(name: str) -> None:
        for number in range(30):
            write(in_files, name, number)

    threads = [threading.Thread(target=write_some, args=(name,)) for name in ("a", "b", "c", "d")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert send(in_files, "get_session_summary")["stats"]["memories"] == 120


def test_a_reader_sees_consistent_states_while_others_write(in_files: FilesBackend) -> None:
    send(in_files, "create_session", title="x")
    stop = threading.Event()

    def write_on() -> None:
        number = 0
        while not stop.is_set():
            commands = [
                {"command": "store_memory", "data": {"key": key, "content": number}} for key in ("one", "other")
            ]
            in_files.send("batch", {"commands": commands}, session_id=SESSION)
            number += 1

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        for _ in range(100):
            found: dict[str, Any] = {
                memory["key"]: memory["content"] for memory in items(in_files, "list_memories", SESSION)
            }
            assert len(set(found.values())) <= 1
            assert len(found) in (0, 2)
    finally:
        stop.set()
        writer.join()


def test_deliveries_of_a_deleted_session_stay_known_without_content(in_files: FilesBackend, data_dir: Path) -> None:
    in_files.send("create_session", {"title": "secret"}, session_id=SESSION, delivery_id="d1")
    in_files.send("store_memory", {"content": "secret"}, session_id=SESSION, delivery_id="d2")
    cursor = in_files.events(SESSION, after=None, limit=10, wait_seconds=0).next_cursor
    in_files.send("delete_session", {"confirm": SESSION}, session_id=SESSION, delivery_id="d3")
    assert not Folder(data_dir).path(SESSION, FILE).exists()
    assert b"secret" not in Folder(data_dir).path(SESSION, TOMBSTONE).read_bytes()
    for command, data, delivery_id in (
        ("create_session", {"title": "secret"}, "d1"),
        ("store_memory", {"content": "secret"}, "d2"),
        ("delete_session", {"confirm": SESSION}, "d3"),
    ):
        in_files.send(command, data, session_id=SESSION, delivery_id=delivery_id)
    with pytest.raises(NotFound):
        export(in_files)
    with pytest.raises(Conflict):
        in_files.send("create_session", {"title": "other"}, session_id=SESSION, delivery_id="d1")
    send(in_files, "create_session", title="Anew")
    in_files.send("delete_session", {"confirm": SESSION}, session_id=SESSION, delivery_id="d3")
    assert send(in_files, "get_session_summary")["title"] == "Anew"
    [event] = in_files.events(SESSION, after=cursor, limit=10, wait_seconds=0).items
    assert (event["event"], event["message"]) == ("create_session", 'Started "Anew".')
    assert not Folder(data_dir).path(SESSION, TOMBSTONE).exists()


def test_the_number_of_known_deliveries_is_bounded(in_files: FilesBackend, data_dir: Path) -> None:
    send(in_files, "create_session", title="x")
    commands = [{"command": "pause_session"}, {"command": "resume_session"}]
    for number in range(3):
        in_files.send("batch", {"commands": commands}, session_id=SESSION, delivery_id=f"d{number}")
    file = Folder(data_dir).path(SESSION, FILE)
    saved = msgspec.json.decode(file.read_bytes())
    known = saved["store"]["deliveries"]
    known[:0] = [{**known[0], "delivery_id": f"old{number}"} for number in range(MOST_DELIVERIES)]
    known[-2]["decided_at"] = "2020-01-01T00:00:00Z"
    file.write_bytes(msgspec.json.encode(saved))
    send(in_files, "pause_session")
    kept = [delivery["delivery_id"] for delivery in msgspec.json.decode(file.read_bytes())["store"]["deliveries"]]
    assert len(kept) == MOST_DELIVERIES
    assert ("d2" in kept, "d1" in kept, "old0" in kept) == (True, False, False)


def test_a_reader_can_wait_for_journal_events(in_files: FilesBackend) -> None:
    send(in_files, "create_session", title="x")
    cursor = in_files.events(SESSION, after=None, limit=10, wait_seconds=0).next_cursor
    began = time.monotonic()
    assert in_files.events(SESSION, after=cursor, limit=10, wait_seconds=0.3).items == []
    assert time.monotonic() - began >= 0.3
    writing = threading.Timer(0.1, lambda: write(in_files, "n", 1))
    writing.start()
    [event] = in_files.events(SESSION, after=cursor, limit=10, wait_seconds=10).items
    assert event["event"] == "store_memory"
    writing.join()

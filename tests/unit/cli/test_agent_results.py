"""Results and environment of an agent's command: bounded, and without files from elsewhere."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agent.execution import task_results
from agent.execution.directory_removal import remove_tree
from agent.execution.task_directory import TaskDirectory, describe, environment_for
from agent.execution.task_results import (
    BODY_BYTES,
    FILE_BYTES,
    MAX_FILES,
    TaskResult,
    collect_artifacts,
    plain,
    read_file,
    read_percent,
    result_body,
)


def body_of(output: bytes, *, size: int | None = None, limit: int = BODY_BYTES, **more: Any) -> dict[str, Any]:
    result = TaskResult(
        output=output,
        size=len(output) if size is None else size,
        artifacts=more.get("artifacts", []),
        left_out=more.get("left_out", []),
    )
    encoded = result_body(result, limit=limit)
    assert len(encoded) <= limit + 2_000
    body: dict[str, Any] = json.loads(encoded)
    return body


@pytest.mark.parametrize(
    ("output", "kept"),
    [
        (b'{"a": [1, null]}\n', {"a": [1, None]}),
        (b"12\n", 12),
        (b" hello\r\nyou \n", "hello\nyou"),
        (b"", None),
        (b"{'a': 1}", "{'a': 1}"),
        (b'["\\u0000"]', '["\\u0000"]'),
        (b"\x1b[1mbold\x1b[0m \x1b]0;title\x07\x00\xff", "bold �"),
        (b"[" * 100_000, "[" * 100_000),
    ],
)
def test_output_is_json_if_it_is_json_else_text(output: bytes, kept: Any) -> None:
    assert body_of(output) == {"output": kept, "artifacts": []}


def test_numbers_are_stored_as_written() -> None:
    result = TaskResult(output=b'{"n": 1.50}', size=11, artifacts=[], left_out=[])
    assert b'{"n": 1.50}' in result_body(result)


def test_long_output_is_truncated_with_a_note() -> None:
    assert body_of(b"[1", size=5_000_000)["output"] == "[1\n… [truncated: 5,000,000 bytes in all]"
    assert body_of(b"x" * 9_000, limit=8_000)["output"].endswith("… [truncated: 9,000 bytes in all]")


def test_artifacts_that_do_not_fit_are_named() -> None:
    artifacts = [{"name": f"{number}.txt", "content": "x" * 3_000} for number in range(4)]
    body = body_of(b"", limit=10_000, artifacts=artifacts, left_out=["big: too large"])
    assert [artifact["name"] for artifact in body["artifacts"]] == ["0.txt", "1.txt", "left-out.txt"]
    assert body["artifacts"][-1]["content"].splitlines() == [
        "big: too large",
        "2.txt: does not fit with the others",
        "3.txt: does not fit with the others",
    ]


def test_files_become_artifacts_with_names_types_and_ids_of_their_task(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "run.py").write_text("print()")
    (tmp_path / "a.md").write_text("# A")
    (tmp_path / "c\n.txt").write_text("odd")
    (tmp_path / "empty").write_text("")
    found, left_out = collect_artifacts(tmp_path, task_id="t")
    assert left_out == []
    described = {item["name"]: (item["type"], item.get("format"), item["content"]) for item in found}
    assert described == {
        "a.md": ("document", "markdown", "# A"),
        "c�.txt": ("document", "text", "odd"),
        "empty": ("file", None, ""),
        "b/run.py": ("code", "python", "print()"),
    }
    others, _ = collect_artifacts(tmp_path, task_id="other")
    assert not {item["artifact_id"] for item in found} & {item["artifact_id"] for item in others}
    assert collect_artifacts(tmp_path, task_id="t")[0] == found


def test_files_beyond_the_maximum_are_left_out(tmp_path: Path) -> None:
    for number in range(MAX_FILES + 2):
        (tmp_path / f"{number:03}").write_text("x")
    found, left_out = collect_artifacts(tmp_path, task_id="t")
    assert len(found) == MAX_FILES
    assert left_out == ["099: more than 99 files", "100: more than 99 files"]


def test_links_pipes_and_folders_are_not_read(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    folder = tmp_path / "artifacts"
    folder.mkdir()
    os.symlink(outside / "secret", folder / "link")
    os.symlink(outside, folder / "folder")
    os.mkfifo(folder / "pipe")
    found, left_out = collect_artifacts(folder, task_id="t")
    assert found == []
    assert [line.partition(":")[0] for line in left_out] == ["folder", "link", "pipe"]
    for path in (folder / "link", folder / "pipe", folder, tmp_path / "nothing"):
        assert read_file(path, limit=10) == (b"", 0)
    assert read_file(outside / "secret", limit=3) == (b"sec", 6)
    swapped = tmp_path / "swapped"
    os.symlink(outside, swapped)
    assert collect_artifacts(swapped, task_id="t") == ([], [])


@pytest.mark.parametrize(
    ("text", "percent"),
    [("", None), ("10% a\nb\n 55.5 % c\nd", 55.5), ("about 10%", None), ("999% done", 100.0), ("5%", 5.0)],
)
def test_the_last_line_that_begins_with_a_percentage_counts(text: str, percent: float | None) -> None:
    assert read_percent(text) == percent


def test_the_end_of_a_text_is_kept() -> None:
    assert plain(b"one\rtwo\tthree\n", limit=9) == "two\tthree"


def test_a_command_gets_its_task_and_no_secrets(tmp_path: Path) -> None:
    task = {"task_id": "t", "description": "d" * 200_000, "input_data": {"a": 1}, "attempt": 2}
    values = describe(task, TaskDirectory(tmp_path))
    assert (values["input_data"], values["attempt"], values["created_by"]) == ('{"a":1}', "2", "")
    own = {
        "PATH": "/bin",
        "API_KEY": "k",
        "OTHER": "is the-key",
        "SESSION_RELAY_LIFELINE": "1",
        "REDIS_URL": "r",
    }
    told = environment_for(values, own, key="the-key", passed=())
    assert told["PATH"] == "/bin"
    assert told["SESSION_RELAY_TASK_ID"] == "t"
    assert told["SESSION_RELAY_ARTIFACT_DIR"] == str(tmp_path / "artifacts")
    assert {"API_KEY", "OTHER", "REDIS_URL", "SESSION_RELAY_LIFELINE", "SESSION_RELAY_DESCRIPTION"}.isdisjoint(told)
    assert environment_for(values, own, key="the-key", passed=("OTHER",))["OTHER"] == "is the-key"


def make_deep(folder: Path, *, levels: int) -> None:
    """Create nested folders, deeper than a path can name, with a file in every hundredth."""
    descriptor = os.open(folder, os.O_RDONLY)
    for level in range(levels):
        os.mkdir("down", dir_fd=descriptor)
        if level % 100 == 0:
            os.close(os.open(f"file-{level}", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        below = os.open("down", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)


def test_a_folder_of_1500_levels_is_read_to_the_maximum_depth_and_removed(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    make_deep(folder, levels=1_500)
    (folder / "last.txt").write_text("x")
    found, left_out = collect_artifacts(folder, task_id="t")
    assert [item["name"] for item in found] == ["file-0", "last.txt"]
    assert left_out == [f"{'down/' * 29}down: directories nested more than 30 deep"]
    remove_tree(folder)
    assert not folder.exists()


def test_every_kind_of_entry_is_read_or_named_and_removed(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    os.symlink(folder, folder / "loop")
    os.symlink("self", folder / "self")
    os.mkfifo(folder / "pipe")
    (folder / "sub").mkdir()
    os.symlink("..", folder / "sub" / "up")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(folder / "socket"))
    with (folder / "huge").open("w") as file:
        file.truncate(2**40)
    for name in (b"a\xff", b"a\xfe"):
        with open(os.path.join(os.fsencode(folder), name), "w") as file:
            file.write("same")
    (folder / "closed").mkdir()
    (folder / "closed" / "file").write_text("x")
    (folder / "closed").chmod(0)
    found, left_out = collect_artifacts(folder, task_id="t")
    assert [item["name"] for item in found if item["name"] != "closed/file"] == ["a�", "a�"]
    assert len({item["artifact_id"] for item in found}) == len(found)
    lines = dict(line.split(": ", 1) for line in left_out)
    assert {"loop", "self", "pipe", "socket", "huge", "sub/up"} <= lines.keys()
    assert lines["huge"] == "1,099,511,627,776 bytes, more than 500,000"
    remove_tree(folder)
    assert not folder.exists()


def test_a_file_that_grows_during_reading_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "artifacts"
    folder.mkdir()
    growing = folder / "growing"
    growing.write_text("x")
    has_ended = threading.Event()

    def grow() -> None:
        while not has_ended.is_set():
            with growing.open("r+") as file:
                file.truncate(1)
                file.truncate(FILE_BYTES + 1)

    thread = threading.Thread(target=grow)
    thread.start()
    try:
        for _ in range(200):
            found, left_out = collect_artifacts(folder, task_id="t")
            assert len(found) + len(left_out) == 1
            # Truncated at a byte limit, it was not valid text, and so is in base64.
            assert all(len(item["content"]) <= (FILE_BYTES + 2) // 3 * 4 for item in found)
    finally:
        has_ended.set()
        thread.join()


def test_the_number_of_directory_entries_read_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_results, "MAX_ENTRIES", 5)
    for number in range(8):
        (tmp_path / f"{number}").mkdir()
    _, left_out = collect_artifacts(tmp_path, task_id="t")
    assert left_out == ["more than 5 files and directories: the rest was not read"]


def test_a_percentage_is_found_in_linear_time() -> None:
    began_at = time.monotonic()
    assert read_percent("\n" * 200_000 + " " * 200_000) is None
    assert time.monotonic() - began_at < 5

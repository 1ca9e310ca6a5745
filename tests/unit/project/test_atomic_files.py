"""Atomic replacement of files: the old or the new content, never a part of it, in every room that writes files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.configuration import store_login
from cli.files import save
from local.data_dir import write_private
from models.atomic_files import PRIVATE, replacing
from sessions.files.store_folder import SESSION, Folder
from tests.support.project import ROOT


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_file_stays_unchanged_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "notes"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        assert Path(file.name).read_bytes() == b"new"
        assert Path(file.name).parent == tmp_path
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["notes"]


@pytest.mark.parametrize("there", [True, False])
def test_an_interrupted_write_leaves_nothing_behind(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "notes"
    if there:
        path.write_bytes(b"old")

    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.writelines(pieces())
    assert os.listdir(tmp_path) == (["notes"] if there else [])
    assert not there or path.read_bytes() == b"old"


def test_a_killed_writer_leaves_the_old_file_and_a_draft_that_is_overwritten(tmp_path: Path) -> None:
    path, draft = tmp_path / "notes", tmp_path / "notes.tmp"
    path.write_bytes(b"old")
    program = f"""
import os, pathlib, signal
from models.atomic_files import replacing
with replacing(pathlib.Path({str(path)!r}), draft=pathlib.Path({str(draft)!r})) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (path.read_bytes(), draft.read_bytes()) == (b"old", b"half")
    with replacing(path, draft=draft) as file:
        file.write(b"new")
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"new", ["notes"])


def test_a_file_keeps_its_mode_and_a_new_one_follows_the_umask_or_is_private(tmp_path: Path) -> None:
    new, shared, private = tmp_path / "new", tmp_path / "shared", tmp_path / "private"
    shared.touch()
    shared.chmod(0o664)
    before = os.umask(0o027)
    try:
        for path in (new, shared):
            with replacing(path) as file:
                file.write(b"x")
        with replacing(private, mode=PRIVATE) as file:
            assert mode_of(Path(file.name)) == 0o600  # The draft may contain secrets, too.
    finally:
        os.umask(before)
    assert [mode_of(path) for path in (new, shared, private)] == [0o640, 0o664, 0o600]


def write_session(path: Path) -> Path:
    folder = Folder(path)
    with folder.lock("garden"):
        folder.write(folder.path("garden", SESSION), [b"{}"])
    return folder.path("garden", SESSION)


def write_login(path: Path) -> Path:
    return store_login({"XDG_CONFIG_HOME": str(path)}, url="http://127.0.0.1:1", key="k")


def write_key(path: Path) -> Path:
    write_private(path / "api_key", "srk_x")
    return path / "api_key"


def write_document(path: Path) -> Path:
    save(str(path / "garden.json"), [b"{}"])
    return path / "garden.json"


@pytest.mark.parametrize(
    ("write", "mode"),
    [(write_session, 0o600), (write_login, 0o600), (write_key, 0o600), (write_document, 0o644)],
)
def test_a_reader_finds_a_complete_file_while_it_is_rewritten(
    tmp_path: Path, write: Callable[[Path], Path], mode: int
) -> None:
    umask = os.umask(0o022)
    try:
        path = write(tmp_path)
    finally:
        os.umask(umask)
    content, inode = path.read_bytes(), path.stat().st_ino
    assert mode_of(path) == mode
    with path.open("rb") as reader:
        assert write(tmp_path) == path
        assert reader.read() == content
    assert path.read_bytes() == content
    assert path.stat().st_ino != inode
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_link_is_written_through_and_not_replaced(tmp_path: Path) -> None:
    """/dev/stdout, for example, is a link, to a file if the output is redirected."""
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    save(str(link), [b"new"])
    assert (link.is_symlink(), target.read_text()) == (True, "new")


def test_a_file_with_the_longest_possible_name_can_be_written(tmp_path: Path) -> None:
    name = "庭" * 85
    assert len(name.encode()) == os.pathconf(tmp_path, "PC_NAME_MAX")
    save(str(tmp_path / name), [b"{}"])
    assert os.listdir(tmp_path) == [name]

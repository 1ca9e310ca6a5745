"""Collects the result of a command: its output, and the files of its directory as artifacts.

All sizes are bounded, and nothing outside the directory is read. Files that do not fit are listed, never just dropped.
"""

from __future__ import annotations

import base64
import mimetypes
import os
import re
import stat
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from models.commands.content_ids import derive_id

BODY_BYTES = 1_000_000
"""Maximum size of a result with its artifacts. Relays accept 1 MiB by default."""
LEAST_BODY_BYTES = 4_000
FILE_BYTES = 500_000
MAX_FILES = 99
"""A result has at most 100 artifacts; the last one may list omitted files."""
MAX_DEPTH = 30
MAX_ENTRIES = 10_000
NAMED_FILES = 200
"""The number of omitted files that are listed."""
LEFT_OUT = "left-out.txt"
NAME_LENGTH = 256
_KINDS = {
    **dict.fromkeys((".md", ".markdown"), ("document", "markdown")),
    **dict.fromkeys((".txt", ".log", ".rst"), ("document", "text")),
    **dict.fromkeys((".html", ".htm"), ("document", "html")),
    ".json": ("data", "json"),
    ".csv": ("data", "csv"),
    **dict.fromkeys((".yaml", ".yml"), ("data", "yaml")),
    ".py": ("code", "python"),
    **dict.fromkeys((".js", ".mjs"), ("code", "javascript")),
    ".ts": ("code", "typescript"),
    ".sh": ("code", "shell"),
    ".sql": ("code", "sql"),
    **dict.fromkeys((".diff", ".patch"), ("code", "diff")),
}
"""Type and format of artifacts by file name extension."""

_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PERCENT = re.compile(r"^[^\S\n]*(\d{1,3}(?:\.\d+)?) ?%", re.MULTILINE)


class TaskResult(NamedTuple):
    """The result of a command."""

    output: bytes
    size: int
    """The size of the whole output, of which `output` may be only the beginning."""
    artifacts: list[dict[str, Any]]
    left_out: list[str]
    """A line for each omitted file, with the reason."""


def plain(data: bytes, *, limit: int = 0) -> str:
    """Decode output without colours and control characters; only its end, if there is a limit."""
    text = _ESCAPE_SEQUENCE.sub("", data.decode(errors="replace")).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub("", text).strip()[-limit:]


def read_percent(text: str) -> float | None:
    """Read the progress from the last line that begins with a percentage."""
    found = _PERCENT.findall(text)
    return min(float(found[-1]), 100.0) if found else None


def read_file(path: Path, *, limit: int) -> tuple[bytes, int]:
    """Read the beginning of a file, and its size. Returns nothing unless it is a readable regular file."""
    try:
        with os.fdopen(_open(path), "rb") as file:
            return file.read(limit), os.fstat(file.fileno()).st_size
    except OSError:
        return b"", 0


def collect_artifacts(folder: Path, *, task_id: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Collect the files of a directory tree as artifacts, by name, and a line for each omitted one. Artifact ids are
    derived from the task's id, since another task may make the same file. Follows no links, and reads at most
    MAX_ENTRIES names and MAX_DEPTH nested directories."""
    artifacts: list[dict[str, Any]] = []
    left_out: list[str] = []
    left = MAX_ENTRIES
    pending: list[tuple[str, ...]] = [()]
    while pending:
        path = pending.pop()
        try:
            parent = _open_folder(folder, path)
        except OSError as error:
            if path or isinstance(error, PermissionError):
                left_out.append(f"{_shown(path) or 'the directory'}: cannot be read ({error.strerror})")
            continue
        try:
            files, folders = _entries(parent, most=left + 1)
            for name in files:
                _add_file((*path, name), parent, task_id, artifacts, left_out)
        finally:
            os.close(parent)
        left -= len(files) + len(folders)
        if left < 0:
            left_out.append(f"more than {MAX_ENTRIES:,} files and directories: the rest was not read")
            break
        if folders and len(path) == MAX_DEPTH:
            left_out.append(f"{_shown(path)}: directories nested more than {MAX_DEPTH} deep")
        else:
            pending += ((*path, name) for name in reversed(folders))
    return artifacts, left_out


def _add_file(
    path: tuple[str, ...], parent: int, task_id: str, artifacts: list[dict[str, Any]], left_out: list[str]
) -> None:
    """Add a file to the artifacts, or a line to `left_out`."""
    name = _shown(path)
    try:
        with os.fdopen(_open(path[-1], folder=parent), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if len(artifacts) == MAX_FILES:
                left_out.append(f"{name}: more than {MAX_FILES} files")
                return
            if size > FILE_BYTES:
                left_out.append(f"{name}: {size:,} bytes, more than {FILE_BYTES:,}")
                return
            content = file.read(FILE_BYTES + 1)
    except OSError as error:
        left_out.append(f"{name}: not a readable regular file ({error.strerror})")
        return
    if len(content) > FILE_BYTES:
        left_out.append(f"{name}: grew to more than {FILE_BYTES:,} bytes while it was read")
        return
    artifact = _artifact(name, content)
    # Names that differ only in unprintable characters belong to different files.
    true_name = os.fsencode("/".join(path))
    distinct = [task_id, artifact] if true_name == name.encode() else [task_id, artifact, true_name.hex()]
    artifacts.append({"artifact_id": derive_id("", name, distinct), **artifact})


def result_body(result: TaskResult, *, limit: int = BODY_BYTES) -> bytes:
    """Build the body that completes a task, of at most `limit` bytes: the output, truncated to half of that, and as
    many artifacts as fit."""
    output = _output(result.output[: limit // 2], size=result.size)
    left_out, artifacts = list(result.left_out), []
    room = limit - len(output) - LEAST_BODY_BYTES // 2
    for artifact in result.artifacts:
        encoded = msgspec.json.encode(artifact)
        if len(encoded) < room:
            artifacts.append(Raw(encoded))
            room -= len(encoded) + 1
        else:
            left_out.append(f"{artifact['name']}: does not fit with the others")
    if left_out:
        lines = [*left_out[:NAMED_FILES], *([f"… {len(left_out)} in all"] if len(left_out) > NAMED_FILES else [])]
        text = "\n".join(lines)[: max(min(room, limit // 4), 200)]
        log = {"name": LEFT_OUT, "type": "log", "format": "text", "content": text}
        artifacts.append(Raw(msgspec.json.encode(log)))
    return msgspec.json.encode({"output": output, "artifacts": artifacts})


def _output(data: bytes, *, size: int) -> Raw:
    """Return valid JSON unchanged if relays accept it, other output as text, and null for empty output."""
    if size == len(data) and b"\\u0000" not in data:
        try:
            msgspec.json.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        else:
            return Raw(data.strip())
    text = plain(data)
    if size > len(data):
        text += f"\n… [truncated: {size:,} bytes in all]"
    return Raw(msgspec.json.encode(text or None))


def _artifact(name: str, data: bytes) -> dict[str, Any]:
    kind, form = _KINDS.get(os.path.splitext(name)[1].lower(), ("file", None))
    described: dict[str, Any] = {"name": name, "type": kind, **({"format": form} if form else {})}
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        media_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
        metadata = {"media_type": media_type, "bytes": len(data)}
        return described | {"format": "base64", "metadata": metadata, "content": base64.b64encode(data).decode()}
    return described | {"content": text}


def _shown(path: tuple[str, ...]) -> str:
    """The path of a file or directory with printable characters only."""
    name = os.fsencode("/".join(path)).decode(errors="replace")
    return "".join(letter if letter.isprintable() else "�" for letter in name)[-NAME_LENGTH:]


def _entries(folder: int, *, most: int) -> tuple[list[str], list[str]]:
    """List files and directories, each by name. Links count as files."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in islice(entries, most):
            (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
    return sorted(files), sorted(folders)


def _open_folder(folder: Path, path: tuple[str, ...]) -> int:
    """Open a directory without following links. Raises OSError for anything else."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(folder, flags)
    for name in path:
        parent = descriptor
        try:
            descriptor = os.open(name, flags, dir_fd=parent)
        finally:
            os.close(parent)
    return descriptor


def _open(entry: str | Path, *, folder: int | None = None) -> int:
    """Open a regular file without following links. Raises OSError for anything else. Does not block on pipes."""
    descriptor = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(0, "it has another type")

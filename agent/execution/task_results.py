"""What a command leaves behind, as the relay takes it: its output, and the files of its folder as artifacts.

Everything is bounded, and nothing outside of the folder is read. What does not fit is named, not silently dropped.
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
"""Of one result with all that belongs to it: relays take 1 MiB unless they are told otherwise."""
LEAST_BODY_BYTES = 4_000
FILE_BYTES = 500_000
MAX_FILES = 99
"""A result has at most 100 artifacts; the last one may name what was left out."""
MAX_DEPTH = 30
LOOKED_AT = 10_000
NAMED_FILES = 200
"""Of those left out."""
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
"""Type and format of artifacts by the ends of their names."""

_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PERCENT = re.compile(r"^[^\S\n]*(\d{1,3}(?:\.\d+)?) ?%", re.MULTILINE)


class TaskResult(NamedTuple):
    """What was left behind."""

    output: bytes
    size: int
    """Of the output, of which only the beginning may be there."""
    artifacts: list[dict[str, Any]]
    left_out: list[str]
    """A line for each file that is not among the artifacts, and why."""


def plain(data: bytes, *, limit: int = 0) -> str:
    """Output as text without colours and control characters; the end of it, if there is a limit."""
    text = _ESCAPE_SEQUENCE.sub("", data.decode(errors="replace")).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub("", text).strip()[-limit:]


def read_percent(text: str) -> float | None:
    """How far the work is: what the last line that begins with a percentage says."""
    found = _PERCENT.findall(text)
    return min(float(found[-1]), 100.0) if found else None


def read_file(path: Path, *, limit: int) -> tuple[bytes, int]:
    """The beginning of a file, and its size; nothing, if it is not there, is no plain file or cannot be read."""
    try:
        with os.fdopen(_open(path), "rb") as file:
            return file.read(limit), os.fstat(file.fileno()).st_size
    except OSError:
        return b"", 0


def collect(folder: Path, *, task_id: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The files of a folder and of those in it as artifacts, by name; and a line for each that is left out. Their ids
    are of this task: another one may make the same file. Links are not followed, and at most LOOKED_AT names and
    MAX_DEPTH folders in one another are looked at."""
    artifacts: list[dict[str, Any]] = []
    left_out: list[str] = []
    left = LOOKED_AT
    pending: list[tuple[str, ...]] = [()]
    while pending:
        path = pending.pop()
        try:
            parent = _open_folder(folder, path)
        except OSError as error:
            if path or isinstance(error, PermissionError):
                left_out.append(f"{_shown(path) or 'the folder'}: cannot be looked into ({error.strerror})")
            continue
        try:
            files, folders = _entries(parent, most=left + 1)
            for name in files:
                _take((*path, name), parent, task_id, artifacts, left_out)
        finally:
            os.close(parent)
        left -= len(files) + len(folders)
        if left < 0:
            left_out.append(f"more than {LOOKED_AT:,} files and folders: the others were not looked at")
            break
        if folders and len(path) == MAX_DEPTH:
            left_out.append(f"{_shown(path)}: has folders more than {MAX_DEPTH} deep in one another")
        else:
            pending += ((*path, name) for name in reversed(folders))
    return artifacts, left_out


def _take(
    path: tuple[str, ...], parent: int, task_id: str, artifacts: list[dict[str, Any]], left_out: list[str]
) -> None:
    """Put a file to the artifacts, or say why not."""
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
        left_out.append(f"{name}: no plain file ({error.strerror})")
        return
    if len(content) > FILE_BYTES:
        left_out.append(f"{name}: grew to more than {FILE_BYTES:,} bytes while it was read")
        return
    artifact = _artifact(name, content)
    # Names that differ only in what cannot be shown are those of different files.
    true_name = os.fsencode("/".join(path))
    distinct = [task_id, artifact] if true_name == name.encode() else [task_id, artifact, true_name.hex()]
    artifacts.append({"artifact_id": derive_id("", name, distinct), **artifact})


def result_body(result: TaskResult, *, limit: int = BODY_BYTES) -> bytes:
    """The body that completes a task, of at most so many bytes: the output, cut at half of that, and as many artifacts
    as there is room for."""
    output = _output(result.output[: limit // 2], size=result.size)
    left_out, artifacts = list(result.left_out), []
    room = limit - len(output) - LEAST_BODY_BYTES // 2
    for artifact in result.artifacts:
        encoded = msgspec.json.encode(artifact)
        if len(encoded) < room:
            artifacts.append(Raw(encoded))
            room -= len(encoded) + 1
        else:
            left_out.append(f"{artifact['name']}: no room for it beside the others")
    if left_out:
        lines = [*left_out[:NAMED_FILES], *([f"… {len(left_out)} in all"] if len(left_out) > NAMED_FILES else [])]
        text = "\n".join(lines)[: max(min(room, limit // 4), 200)]
        note = {"name": LEFT_OUT, "type": "log", "format": "text", "content": text}
        artifacts.append(Raw(msgspec.json.encode(note)))
    return msgspec.json.encode({"output": output, "artifacts": artifacts})


def _output(data: bytes, *, size: int) -> Raw:
    """The value as it was written if that is JSON that relays take, else text; null for nothing."""
    if size == len(data) and b"\\u0000" not in data:
        try:
            msgspec.json.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        else:
            return Raw(data.strip())
    text = plain(data)
    if size > len(data):
        text += f"\n… [cut: {size:,} bytes in all]"
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
    """The name of a file or folder, fit to be shown."""
    name = os.fsencode("/".join(path)).decode(errors="replace")
    return "".join(letter if letter.isprintable() else "�" for letter in name)[-NAME_LENGTH:]


def _entries(folder: int, *, most: int) -> tuple[list[str], list[str]]:
    """What is no folder, and the folders, by name. Links are no folders."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in islice(entries, most):
            (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
    return sorted(files), sorted(folders)


def _open_folder(folder: Path, path: tuple[str, ...]) -> int:
    """Raises OSError for what is no folder. No way there leads over a link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(folder, flags)
    for name in path:
        above = descriptor
        try:
            descriptor = os.open(name, flags, dir_fd=above)
        finally:
            os.close(above)
    return descriptor


def _open(entry: str | Path, *, folder: int | None = None) -> int:
    """Raises OSError for what is no plain file, among it symbolic links. Does not wait for the other end of a pipe."""
    descriptor = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(0, "it is something else")

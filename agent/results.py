"""What a command leaves behind, as the relay takes it: its output, and the files of its folder as artifacts.

Everything is bounded, and nothing outside of the folder is read. What does not fit is named, not silently dropped.
"""

from __future__ import annotations

import base64
import mimetypes
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from models.identity import derive_id

BODY_BYTES = 1_000_000
"""Of one result with all that belongs to it: relays take 1 MiB unless they are told otherwise."""
LEAST_BODY_BYTES = 4_000
FILE_BYTES = 500_000
MAX_FILES = 99
"""A result has at most 100 artifacts; the last one may name what was left out."""
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


class Result(NamedTuple):
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
    """The beginning of a file, and its size; nothing, if it is not there or is no plain file."""
    try:
        descriptor = _open(path)
    except OSError:
        return b"", 0
    with os.fdopen(descriptor, "rb") as file:
        return file.read(limit), os.fstat(descriptor).st_size


def collect(folder: Path, *, task_id: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The files of a folder and of those in it as artifacts, by name; and a line for each that is left out. Their ids
    are of this task: another one may make the same file."""
    artifacts: list[dict[str, Any]] = []
    left_out: list[str] = []
    for name, parent, entry in _files(folder):
        try:
            descriptor = _open(entry, folder=parent)
        except OSError as error:
            left_out.append(f"{name}: no plain file ({error.strerror})")
            continue
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            if len(artifacts) == MAX_FILES:
                left_out.append(f"{name}: more than {MAX_FILES} files")
            elif size > FILE_BYTES:
                left_out.append(f"{name}: {size:,} bytes, more than {FILE_BYTES:,}")
            else:
                artifact = _artifact(name, file.read(FILE_BYTES))
                artifacts.append({"artifact_id": derive_id("", name, [task_id, artifact]), **artifact})
    return artifacts, left_out


def result_body(result: Result, *, limit: int = BODY_BYTES) -> bytes:
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


def _files(folder: Path) -> Iterator[tuple[str, int, str]]:
    """The name of each file within the folder, fit to be shown, with the folder in which it is and its own name.
    Symbolic links to folders are among them, and not followed."""
    for path, folders, files, parent in os.fwalk(folder, follow_symlinks=False):
        folders.sort()
        links = [name for name in folders if stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)]
        for entry in sorted([*files, *links]):
            name = os.fsencode(os.path.relpath(os.path.join(path, entry), folder)).decode(errors="replace")
            yield "".join(letter if letter.isprintable() else "�" for letter in name)[-NAME_LENGTH:], parent, entry


def _open(entry: str | Path, *, folder: int | None = None) -> int:
    """Raises OSError for what is no plain file, among it symbolic links. Does not wait for the other end of a pipe."""
    descriptor = os.open(entry, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    raise OSError(0, "it is something else")

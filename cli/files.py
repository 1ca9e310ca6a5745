"""Writes files atomically, makes standard input seekable, and reads texts and JSON given as arguments."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import click

from models.atomic_files import replacing

SPOOL_BYTES = 8 * 1_048_576


def save(name: str, parts: Iterable[bytes]) -> None:
    """Write a file atomically: the previous content stays until the new one is complete. A device, or what a link leads
    to, is written in place."""
    path = Path(name)
    # Such as /dev/null, and /dev/stdout, which is a link: neither must be replaced.
    if path.is_symlink() or (path.exists() and not path.is_file()):
        with path.open("wb") as file:
            file.writelines(parts)
        return
    with replacing(path) as file:
        file.writelines(parts)


@contextlib.contextmanager
def reading(name: str) -> Iterator[IO[bytes]]:
    """Open a file, or standard input for `-`, as a seekable stream."""
    if name != "-":
        with open(name, "rb") as file:
            yield file
        return
    with tempfile.SpooledTemporaryFile(SPOOL_BYTES) as spool:
        shutil.copyfileobj(sys.stdin.buffer, spool)
        spool.seek(0)
        yield spool


def read_text(argument: str) -> str:
    """Return a text given as an argument, or that on standard input for `-`, without its last line break. Raises
    UsageError if it is empty or not UTF-8."""
    if argument != "-":
        text = argument
    else:
        try:
            text = sys.stdin.buffer.read().decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError as error:
            raise click.UsageError("Standard input is not UTF-8.") from error
    if not text.strip():
        raise click.UsageError("The text is empty.")
    return text


def read_json(argument: str, *, option: str) -> Any:
    """Return the JSON object given as an argument, in a file for `@FILE`, or on standard input for `-`. Numbers stay as
    they are written. Raises UsageError for anything else."""
    import msgspec

    if argument == "-":
        content = sys.stdin.buffer.read()
    elif argument.startswith("@"):
        content = Path(argument[1:]).read_bytes()
    else:
        content = argument.encode(errors="surrogateescape")
    try:
        msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise click.UsageError(f"{option} expects a JSON object: {error}") from error
    return msgspec.Raw(content)

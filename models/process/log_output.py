"""Writes log lines without ever waiting: a reader that stops reading, or a full disk, must not stop a process."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import stat
import time
from collections.abc import Hashable, Iterable
from contextlib import suppress
from typing import TextIO

from models.process.log_repetition import PER_GROUP, TROUBLE, Line, Repeated, Repetition

MAX_UNWRITTEN_BYTES = 1_048_576
"""Lines kept while they cannot be written; further lines are counted."""
FILE_STEP_BYTES = 1_048_576
"""Bytes per write to a file."""
LOOK_SECONDS = 1.0
"""Time between two looks whether the log file was renamed."""
STDOUT, STDERR = 1, 2


class _Descriptor:
    """A pipe, terminal, socket or file, written as far as it has room, whole lines at once: other processes may write
    to it, too."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._poll: select.poll | None = None
        self._step = FILE_STEP_BYTES
        if not stat.S_ISREG(os.fstat(number).st_mode):
            self._poll = select.poll()
            self._poll.register(number, select.POLLOUT)
            self._step = select.PIPE_BUF  # If it has room at all, it takes as many bytes at once.

    def write(self, data: bytearray) -> bool:
        """Write, and remove from the data what was written; returns whether all was. If nobody can read it any more,
        all is removed."""
        try:
            while data and (self._poll is None or self._poll.poll(0)):
                end = len(data) if len(data) <= self._step else data.rfind(b"\n", 0, self._step) + 1 or self._step
                del data[: os.write(self._number, data[:end])]
        except BlockingIOError:
            pass
        except OSError:
            if self._poll is not None:
                data.clear()  # Its other end is closed. A file on a full disk may have room later.
        return not data


class LogFile:
    """A file that stdout and stderr are appended to. If it is renamed, as programs that rotate logs do, a new one is
    opened under its path before the next line; nothing is lost."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._look_at = 0.0

    def follow(self) -> None:
        """Open the file, unless it is open and still has its path. Looks once in LOOK_SECONDS. While it cannot be
        opened, lines go where they went before."""
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        with suppress(OSError):
            if not self._is_open():
                opened = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
                os.dup2(opened, STDOUT)
                os.dup2(opened, STDERR)
                os.close(opened)

    def _is_open(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(STDERR))
        except FileNotFoundError:
            return False


class TurnHandler(logging.StreamHandler[TextIO]):
    """Writes the lines of one turn of the event loop together, as each write costs more than its line. Warnings, and
    lines of threads without an event loop, are written at once, after what was logged before them.

    While they cannot be written, lines are kept, or only counted. Warnings and errors that repeat are counted, too.
    """

    def __init__(self, stream: TextIO, *, is_json: bool = False, log_file: str = "") -> None:
        """With `log_file`, lines go to that file, and so does all else that this process writes to stdout or stderr."""
        super().__init__(stream)
        self.is_json = is_json
        """Whether its formatter makes JSON."""
        self._repetition = Repetition()
        self._lines: list[str] = []
        self._waits_for_turns = True
        self._file = LogFile(log_file) if log_file else None
        if self._file:
            self._file.follow()
        self._descriptor = _descriptor_of(stream)
        self._unwritten = bytearray()
        self._missing = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line, or keep it until the next turn; or count it, if it is a warning that was just written."""
        try:
            if record.levelno < logging.WARNING or self._is_new(record):
                self.keep([self.format(record)])
            if record.levelno > logging.INFO:
                self.flush()
        except Exception:
            self.handleError(record)

    def keep(self, lines: Iterable[str]) -> None:
        """Write lines in the next turn."""
        with self.lock:  # type: ignore[union-attr]
            is_first = not self._lines
            self._lines += lines
            if not is_first:
                return  # The first of them has already asked for a turn.
            if self._waits_for_turns and (loop := asyncio._get_running_loop()):
                loop.call_soon(self.flush)
            else:
                self.flush()

    def admits(self, line: Line, *, key: Hashable, group: Hashable, most: int = 1, most_in_group: int) -> bool:
        """Returns whether a line is to be written, or counts it; see `Repetition`."""
        with self.lock:  # type: ignore[union-attr]
            self.write_counts()
            return self._repetition.admits(line, key=key, group=group, most=most, most_in_group=most_in_group)

    def write_counts(self) -> None:
        """Write how often lines were repeated, for those that are due."""
        with self.lock:  # type: ignore[union-attr]
            if counted := self._repetition.due():
                self.keep([self._describe(repeated) for repeated in counted])

    def write_at_once(self) -> None:
        """Write the lines that are kept, and from now on each line at once."""
        self._waits_for_turns = False
        with self.lock:  # type: ignore[union-attr]
            self.keep([self._describe(repeated) for repeated in self._repetition.end()])
        self.flush()

    def flush(self) -> None:
        """Write the lines that are kept."""
        with self.lock:  # type: ignore[union-attr]
            if self._lines or self._unwritten:
                lines, self._lines = self._lines, []
                if self._descriptor is None:
                    self.stream.write("\n".join(lines) + "\n")
                    super().flush()
                else:
                    self._write(self._descriptor, lines)

    def _write(self, descriptor: _Descriptor, lines: list[str]) -> None:
        if self._file:
            self._file.follow()
        if self._missing and descriptor.write(self._unwritten):
            text = f"{self._missing:,} log lines are missing: they could not be written."
            lines = [self.format(_record(__name__, logging.WARNING, text)), *lines]
            self._missing = 0
        if len(self._unwritten) < MAX_UNWRITTEN_BYTES:
            self._unwritten += "".join([f"{line}\n" for line in lines]).encode(errors="backslashreplace")
        else:
            self._missing += len(lines)
        descriptor.write(self._unwritten)

    def _is_new(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if record.exc_info and record.exc_info[0]:
            text += f" ({record.exc_info[0].__name__})"
        line = Line(logger=record.name, level=record.levelno, text=text)
        key = (record.name, getattr(record, TROUBLE, text))
        return self.admits(line, key=key, group=("any", record.name, record.msg), most_in_group=PER_GROUP)

    def _describe(self, repeated: Repeated) -> str:
        record = _record(repeated.line.logger, repeated.line.level, repeated.message)
        record.__dict__.update(repeated=repeated.count, seconds=repeated.seconds)
        return self.format(record)


def _record(name: str, level: int, text: str) -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, text, None, None)


def _descriptor_of(stream: TextIO) -> _Descriptor | None:
    """Returns the descriptor that the stream writes to, or None if it writes to something else."""
    try:
        return _Descriptor(stream.fileno())
    except (OSError, ValueError):
        return None

"""Configures logging of all processes to stderr, for people or as JSON. Log lines never contain payloads or keys."""

from __future__ import annotations

import asyncio
import logging
import os
import select
import stat
import sys
import time
from functools import lru_cache
from http import HTTPStatus
from typing import TextIO
from urllib.parse import quote

from pythonjsonlogger.json import JsonFormatter

from models.process.url_redaction import mask_path
from models.settings import Settings

TIME_FORMAT = "%Y-%m-%dT%H:%M:%S"
ACCESS_FORMAT = '%s - "%s %s HTTP/%s" %d'
"""Uvicorn's."""
MAX_REFUSED_LINES = 10
"""Logged requests over a limit per second in all processes of a relay, so that a sender that does not slow down cannot
fill the disk. The rejection log counts all of them."""


MAX_UNWRITTEN_BYTES = 1_048_576
"""Lines kept while nobody reads the pipe that they go to; further lines are counted."""

KEPT_LENGTH = 200
"""Longer paths are masked each time, so that those that are kept stay small."""


@lru_cache(2)
def _format_second(second: int, date_format: str) -> str:
    """Return the time in UTC. Most lines are of the same second as the one before."""
    return time.strftime(date_format, time.gmtime(second))


class _JsonFormatter(JsonFormatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return _format_second(int(record.created), datefmt or TIME_FORMAT)


class _ConsoleFormatter(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return _console_line(record.created, record.levelname, record.name, record.message)


def _console_line(created: float, level: str, name: str, message: str) -> str:
    second = int(created)
    return f"{_format_second(second, TIME_FORMAT)}.{int((created - second) * 1000):03d}Z {level:<7} {name}: {message}"


class _Pipe:
    """Writes to a pipe or socket as far as it has room, whole lines at once: other processes may write to it, too."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._poll = select.poll()
        self._poll.register(file, select.POLLOUT)

    def write(self, data: bytearray) -> bool:
        """Write, and remove from the data what was written; returns whether all was. If the other end is closed, all is
        removed."""
        try:
            while data and self._poll.poll(0):  # Then it takes PIPE_BUF bytes at once.
                end = data.rfind(b"\n", 0, select.PIPE_BUF) + 1 or select.PIPE_BUF
                del data[: os.write(self._file, data[:end])]
        except BlockingIOError:
            pass
        except OSError:
            data.clear()
        return not data


def _pipe_of(stream: TextIO) -> _Pipe | None:
    """Returns the pipe or socket that the stream writes to, or None if it writes to something else."""
    try:
        file = stream.fileno()
        mode = os.fstat(file).st_mode
    except (OSError, ValueError):
        return None
    return _Pipe(file) if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else None


class _TurnHandler(logging.StreamHandler[TextIO]):
    """Writes the lines of one turn of the event loop together, as each write costs more than its line. Warnings, and
    lines of threads without an event loop, are written at once, after what was logged before them.

    A pipe that is full because nobody reads it would stop the process: then lines wait for it, or are only counted.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines: list[str] = []
        self._waits_for_turns = True
        self._pipe = _pipe_of(stream)
        self._unwritten = bytearray()
        self._missing = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line, or keep it until the next turn."""
        try:
            self.keep(self.format(record))
            if record.levelno > logging.INFO:
                self.flush()
        except Exception:
            self.handleError(record)

    def keep(self, line: str) -> None:
        """Write the line in the next turn."""
        with self.lock:  # type: ignore[union-attr]
            self._lines.append(line + self.terminator)
            if len(self._lines) > 1:
                return  # The first of them has already asked for a turn.
            if self._waits_for_turns and (loop := asyncio._get_running_loop()):
                loop.call_soon(self.flush)
            else:
                self.flush()

    def write_at_once(self) -> None:
        """Write the lines that are kept, and from now on each line at once."""
        self._waits_for_turns = False
        self.flush()

    def flush(self) -> None:
        """Write the lines that are kept."""
        with self.lock:  # type: ignore[union-attr]
            if self._lines:
                lines, self._lines = self._lines, []
                if self._pipe is None:
                    self.stream.write("".join(lines))
                else:
                    self._write_to_pipe(self._pipe, lines)
            super().flush()

    def _write_to_pipe(self, pipe: _Pipe, lines: list[str]) -> None:
        if self._missing and pipe.write(self._unwritten):
            text = f"{self._missing:,} log lines are missing: nobody read them."
            lines = [self._format_warning(text) + self.terminator, *lines]
            self._missing = 0
        if len(self._unwritten) < MAX_UNWRITTEN_BYTES:
            self._unwritten += "".join(lines).encode(errors="backslashreplace")
        else:
            self._missing += len(lines)
        pipe.write(self._unwritten)

    def _format_warning(self, text: str) -> str:
        return self.format(logging.LogRecord(__name__, logging.WARNING, "", 0, text, None, None))


class _AccessFilter(logging.Filter):
    """Filters uvicorn's access log: removes query strings, which may contain search terms, masks tokens in paths, and
    limits the lines for requests over a limit."""

    def __init__(self, most_per_second: int) -> None:
        super().__init__()
        self._most_per_second = most_per_second
        self._second = 0
        self._shown = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if not isinstance(record.args, tuple) or len(record.args) != 5:
            return True
        client, method, path, version, status = record.args
        if status == HTTPStatus.TOO_MANY_REQUESTS and not self._has_room(int(record.created)):
            return False
        path = str(path)
        shown = _mask_once(path) if len(path) <= KEPT_LENGTH else mask_path(path)
        record.args = (client, method, shown, version, status)
        return True

    def _has_room(self, second: int) -> bool:
        if second != self._second:
            self._second, self._shown = second, 0
        self._shown += 1
        return self._shown <= self._most_per_second


class AccessLog:
    """Writes the lines of uvicorn's access log, for people without a record for each of them. Make it when logging is
    configured."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("uvicorn.access")
        handlers = logging.getLogger().handlers
        is_direct = len(handlers) == 1 and isinstance(handlers[0].formatter, _ConsoleFormatter)
        self._handler = handlers[0] if is_direct and isinstance(handlers[0], _TurnHandler) else None

    def write(self, client: str, method: str, path: str, version: str, status: int) -> None:
        """Log a response. Formats nothing unless it is logged."""
        if not self._logger.isEnabledFor(logging.INFO):
            return
        if self._handler is None or status == HTTPStatus.TOO_MANY_REQUESTS:
            self._logger.info(ACCESS_FORMAT, client, method, quote(path), version, status)
            return
        shown = _show_once(path) if len(path) <= KEPT_LENGTH else _show(path)
        message = ACCESS_FORMAT % (client, method, shown, version, status)
        self._handler.keep(_console_line(time.time(), "INFO", self._logger.name, message))


def _show(path: str) -> str:
    return mask_path(quote(path))


_show_once = lru_cache(1_024)(_show)
_mask_once = lru_cache(1_024)(mask_path)


def configure_logging(settings: Settings) -> None:
    """Log to stderr in LOG_FORMAT, from LOG_LEVEL up. May be called again."""
    logging._srcfile = None  # With the next two, the documented way to leave out what no format shows.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = _TurnHandler(sys.stderr)
    handler.setFormatter(_formatter(settings))
    logging.basicConfig(handlers=[handler], level=settings.log_level, force=True)
    access = logging.getLogger("uvicorn.access")
    if not any(isinstance(known, _AccessFilter) for known in access.filters):
        access.addFilter(_AccessFilter(settings.part_of(MAX_REFUSED_LINES)))


def write_last_lines() -> None:
    """Write all further lines at once, since the process is about to end, possibly within this turn."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _TurnHandler):
            handler.write_at_once()


def _formatter(settings: Settings) -> logging.Formatter:
    if settings.log_format == "console":
        return _ConsoleFormatter()
    return _JsonFormatter(
        ["asctime", "levelname", "name", "message"],
        datefmt=f"{TIME_FORMAT}Z",
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        json_ensure_ascii=False,
    )

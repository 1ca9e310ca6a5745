"""Configures logging of all processes to stderr, for people or as JSON. Log lines never contain payloads or keys."""

from __future__ import annotations

import logging
import sys
from typing import Any

from pythonjsonlogger.msgspec import MsgspecFormatter

from models.process.log_lines import end_of_trace, format_time, one_line
from models.process.log_output import TurnHandler
from models.settings import Settings

TRACES = frozenset({"exc_info", "stack_info", "frames"})
"""Fields with many lines."""


class _JsonFormatter(MsgspecFormatter):
    """One object per line. What was passed as `extra` becomes fields."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return format_time(record.created)

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Bound the texts, of which parts may come from senders."""
        log_data["message"] = one_line(log_data["message"])
        for name in TRACES & log_data.keys():
            log_data[name] = end_of_trace(str(log_data[name]))
        return log_data


class _ConsoleFormatter(logging.Formatter):
    """A line, and below it a traceback."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        text = f"{format_time(record.created)} {record.levelname:<7} {record.name}: {one_line(record.message)}"
        frames = getattr(record, "frames", "")
        return f"{text}\n{end_of_trace(frames)}" if frames else text

    def formatException(self, ei: Any) -> str:  # noqa: N802
        return end_of_trace(super().formatException(ei))


def configure_logging(settings: Settings) -> None:
    """Log to stderr, or to LOG_FILE, in LOG_FORMAT, from LOG_LEVEL up. May be called again."""
    logging._srcfile = None  # With the next two, the documented way to leave out what no format shows.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    is_json = settings.log_format == "json"
    handler = TurnHandler(sys.stderr, is_json=is_json, log_file=settings.log_file)
    handler.setFormatter(_json_formatter() if is_json else _ConsoleFormatter())
    logging.basicConfig(handlers=[handler], level=settings.log_level, force=True)


def write_last_lines() -> None:
    """Write all further lines at once, since the process is about to end, possibly within this turn."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, TurnHandler):
            handler.write_at_once()


def write_counts() -> None:
    """Write how often warnings were repeated, once they have been for a minute. To be called regularly; lines that are
    logged do so, too."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, TurnHandler):
            handler.write_counts()


def _json_formatter() -> logging.Formatter:
    return _JsonFormatter(
        ["asctime", "levelname", "name", "message"],
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
    )

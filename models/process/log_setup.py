"""Configures logging of all processes to stderr, for people or as JSON. Log lines never contain payloads or keys."""

from __future__ import annotations

import logging
import sys
import time
from http import HTTPStatus

from pythonjsonlogger.json import JsonFormatter

from models.process.url_redaction import mask_path
from models.settings import Settings

CONSOLE_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S"
MAX_REFUSED_LINES = 10
"""Logged requests over a limit per second, so that a sender that does not slow down cannot fill the disk. The rejection
log counts all of them."""


class _JsonFormatter(JsonFormatter):
    converter = staticmethod(time.gmtime)


class _ConsoleFormatter(logging.Formatter):
    converter = staticmethod(time.gmtime)


class _AccessFilter(logging.Filter):
    """Filters uvicorn's access log: removes query strings, which may contain search terms, masks tokens in paths, and
    limits the lines for requests over a limit."""

    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._shown = 0

    def filter(self, record: logging.LogRecord) -> bool:
        if not isinstance(record.args, tuple) or len(record.args) != 5:
            return True
        client, method, path, version, status = record.args
        if status == HTTPStatus.TOO_MANY_REQUESTS and not self._has_room(int(record.created)):
            return False
        record.args = (client, method, mask_path(str(path)), version, status)
        return True

    def _has_room(self, second: int) -> bool:
        if second != self._second:
            self._second, self._shown = second, 0
        self._shown += 1
        return self._shown <= MAX_REFUSED_LINES


def configure_logging(settings: Settings) -> None:
    """Log to stderr in LOG_FORMAT, from LOG_LEVEL up. May be called again."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(settings))
    logging.basicConfig(handlers=[handler], level=settings.log_level, force=True)
    access = logging.getLogger("uvicorn.access")
    if not any(isinstance(known, _AccessFilter) for known in access.filters):
        access.addFilter(_AccessFilter())


def _formatter(settings: Settings) -> logging.Formatter:
    if settings.log_format == "console":
        return _ConsoleFormatter(CONSOLE_FORMAT, TIME_FORMAT)
    return _JsonFormatter(
        ["asctime", "levelname", "name", "message"],
        datefmt=f"{TIME_FORMAT}Z",
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        json_ensure_ascii=False,
    )

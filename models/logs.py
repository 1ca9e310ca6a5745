"""Logging of every process: to standard error, for people or as JSON. What is logged never holds payloads or keys."""

from __future__ import annotations

import logging
import sys
import time

from pythonjsonlogger.json import JsonFormatter

from models.paths import mask_path
from models.settings import Settings

CONSOLE_FORMAT = "%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s"
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S"


class _JsonFormatter(JsonFormatter):
    converter = staticmethod(time.gmtime)


class _ConsoleFormatter(logging.Formatter):
    converter = staticmethod(time.gmtime)


class _PathOnly(logging.Filter):
    """Cuts the query from uvicorn's access log: it may hold what a sender searches for. Masks tokens in paths."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple) and len(record.args) == 5:
            client, method, path, version, status = record.args
            record.args = (client, method, mask_path(str(path)), version, status)
        return True


def configure_logging(settings: Settings) -> None:
    """Send all loggers' records to standard error in LOG_FORMAT from LOG_LEVEL up. May be repeated."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(settings))
    logging.basicConfig(handlers=[handler], level=settings.log_level, force=True)
    access = logging.getLogger("uvicorn.access")
    if not any(isinstance(known, _PathOnly) for known in access.filters):
        access.addFilter(_PathOnly())


def _formatter(settings: Settings) -> logging.Formatter:
    if settings.log_format == "console":
        return _ConsoleFormatter(CONSOLE_FORMAT, TIME_FORMAT)
    return _JsonFormatter(
        ["asctime", "levelname", "name", "message"],
        datefmt=f"{TIME_FORMAT}Z",
        rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        json_ensure_ascii=False,
    )

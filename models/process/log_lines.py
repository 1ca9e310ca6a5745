"""Lines about deliveries and requests: their fields, and their form for people or as JSON.

There is one for each webhook, so they are written without a record of `logging`.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Sequence
from functools import lru_cache

import msgspec

from models.process.log_output import TurnHandler

TIME_FORMAT = "%Y-%m-%dT%H:%M:%S"
MESSAGE_LENGTH = 2_000
"""Characters of a message; most are shorter than 200."""
TRACE_LENGTH = 8_000
"""Characters of a traceback, the last ones."""
LONGEST = 256
"""Characters of a value that is not what it should be; names have no more."""
FINGERPRINT_DIGITS = 12
"""Hex digits that stand for a session: 48 bits distinguish millions of sessions."""
KEPT_SESSIONS, KEPT_SOURCES = 4_096, 1_024

_PLAIN = re.compile(r"[^\s\"=]+")
"""A value that needs no quotes in a line for people."""


class Fields(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """The fields of a line about a delivery or a request. None holds content: ids of sessions may be words of a
    title, so that only their fingerprints are shown."""

    time: str = ""
    level: str = ""
    logger: str = ""
    message: str = ""
    outcome: str = ""
    cause: str = ""
    """The code of the error."""
    status: int = 0
    """The HTTP status, also of a command's outcome."""
    delivery_id: str = ""
    source: str = ""
    """The name of the key or secret."""
    command: str = ""
    session: str = ""
    client: str = ""
    """The client's address."""
    duration_ms: float | None = None
    method: str = ""
    path: str = ""


_SEPARATORS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
"""Characters at which some readers of lines split."""
_encode = msgspec.json.Encoder().encode


class LineLog:
    """Writes such lines under the name of a logger. Make it when logging is configured."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.handler = next((item for item in logging.getLogger().handlers if isinstance(item, TurnHandler)), None)
        self.is_enabled = self.handler is not None and logging.getLogger(name).isEnabledFor(logging.INFO)
        """Whether the lines are written; otherwise none need be made."""
        is_json = self.handler is not None and self.handler.is_json
        self._show: Callable[[Fields], str] = _json_line if is_json else _console_line

    def write(self, lines: Sequence[Fields]) -> None:
        """Write lines, all with the time of now."""
        if self.handler is None or not self.is_enabled:
            return
        now = format_time(time.time())
        for line in lines:
            line.time, line.level, line.logger = now, "INFO", self._name
        self.handler.keep(map(self._show, lines))


def _json_line(line: Fields) -> str:
    encoded = _encode(line)
    if len(encoded) > MESSAGE_LENGTH:
        encoded = _encode(_shortened(line))
    text = encoded.decode()
    return text if text.isascii() else text.translate(_SEPARATORS)


def _shortened(line: Fields) -> Fields:
    """Returns the line with short values, of which somebody with access to Redis may choose some."""
    values = msgspec.structs.asdict(line)
    return msgspec.structs.replace(
        line, **{name: value[:LONGEST] for name, value in values.items() if isinstance(value, str)}
    )


def _console_line(line: Fields) -> str:
    """Returns the line for people. A loop over the fields would take four times as long."""
    text = f"{line.time} {line.level:<7} {line.logger}: {line.message}"
    if line.outcome:
        text += f" outcome={line.outcome}"
    if line.cause:
        text += f" cause={line.cause}"
    if line.delivery_id:
        text += f" delivery_id={line.delivery_id}"
    if line.source:
        text += f" source={_quoted(line.source)}"
    if line.command:
        text += f" command={line.command}"
    if line.session:
        text += f" session={line.session}"
    if line.client:
        text += f" client={line.client}"
    if line.duration_ms is not None:
        text += f" duration_ms={line.duration_ms}"
    return text if len(text) <= MESSAGE_LENGTH and text.isprintable() else one_line(text)


@lru_cache(KEPT_SOURCES)
def _quoted(text: str) -> str:
    """Returns a name of any characters so that it is one value on one line."""
    return text if _PLAIN.fullmatch(text) and text.isprintable() else msgspec.json.encode(one_line(text)).decode()


def one_line(text: str) -> str:
    """Returns a text on one line, without control characters, and not too long."""
    if len(text) > MESSAGE_LENGTH:
        text = f"{text[:MESSAGE_LENGTH]}… ({len(text):,} characters)"
    text = text.strip()
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def end_of_trace(text: str) -> str:
    """Returns the end of a traceback, without control characters other than line breaks."""
    return "\n".join("".join(map(_shown, line)) for line in text[-TRACE_LENGTH:].rstrip().split("\n"))


def format_time(seconds: float) -> str:
    """Returns a time in UTC, with milliseconds."""
    return _format_milliseconds(int(seconds * 1000))


@lru_cache(2)
def _format_milliseconds(milliseconds: int) -> str:
    """Under load, most lines are of the same millisecond as the one before."""
    second, rest = divmod(milliseconds, 1000)
    return f"{_format_second(second)}.{rest:03d}Z"


@lru_cache(2)
def _format_second(second: int) -> str:
    return time.strftime(TIME_FORMAT, time.gmtime(second))


@lru_cache(KEPT_SESSIONS)
def session_fingerprint(session_id: str) -> str:
    """Returns digits that stand for a session in all lines, as its id may be made of the words of its title."""
    return hashlib.sha256(session_id.encode()).hexdigest()[:FINGERPRINT_DIGITS]


def rounded_ms(seconds: float) -> float:
    """Returns a duration in milliseconds, with two decimals."""
    return round(seconds * 1000, 2)

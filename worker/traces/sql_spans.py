"""Spans of SQL statements within the current span: their operations and tables, never their text or values."""

from __future__ import annotations

import re
from typing import Any

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, get_current_span
from sqlalchemy import Engine, event

STATEMENT = re.compile(r"(?:^|;)\s*([a-z]+)", re.IGNORECASE)
WRITTEN = r"(?:INTO|UPDATE|into|update)\s+([a-z_]+)"
READ = r"(?:FROM|JOIN|from|join)\s+([a-z_]+)\b(?!\s*\()"
"""Without functions."""
TABLE = re.compile(rf"\b(?:{WRITTEN}|{READ})")
LONGEST_NAME = 120


class SqlSpans:
    """Makes a span of each statement of an engine. For one thread."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._span: Span | None = None
        """That of the running statement."""

    def listen(self, engine: Engine) -> None:
        """Begin with the next statement."""
        event.listen(engine, "before_cursor_execute", self._begin)
        event.listen(engine, "after_cursor_execute", self._end)
        event.listen(engine, "handle_error", self._fail)
        event.listen(engine, "commit", lambda _: get_current_span().add_event("commit"))

    def _begin(self, _: Any, __: Any, statement: str, *___: Any) -> None:
        if get_current_span().is_recording():
            name = summarize(statement)
            attributes = {"db.system.name": "postgresql", "db.query.summary": name}
            self._span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)

    def _end(self, *_: Any) -> None:
        if self._span is not None:
            self._span.end()
            self._span = None

    def _fail(self, context: Any) -> None:
        if self._span is not None:
            self._span.set_status(Status(StatusCode.ERROR, type(context.original_exception).__name__))
        self._end()


def summarize(statement: str) -> str:
    """Return the operations of a text of statements, and its tables."""
    operations = dict.fromkeys(word.upper() for word in STATEMENT.findall(statement))
    tables = dict.fromkeys(written or read for written, read in TABLE.findall(statement))
    return " ".join([*operations, *tables])[:LONGEST_NAME]

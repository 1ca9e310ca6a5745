"""Drains with traces: each applied entry has a span that continues the trace of its push."""

from __future__ import annotations

import time
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from redis import Redis
from sqlalchemy import Connection, Engine, RootTransaction

from models.process.tracing import attributes_of
from models.queue.inbox import Entry, Identity
from sessions.commands.pending_writes import identity_of
from sessions.rules.event_log import ApplyResult
from worker.drain import Committed, Drain
from worker.inbox import StreamEntry
from worker.traces.sql_spans import SqlSpans

_PROPAGATOR = TraceContextTextMapPropagator()


class TracedDrain(Drain):
    """A drain whose transactions have spans.

    A transaction applies entries of many traces. Its statements are in the trace of the first; the spans of the others
    have a link to that one.
    """

    def __init__(self, tracer: Tracer, redis: Redis, engine: Engine, *, failpoint_dir: str = "") -> None:
        super().__init__(redis, engine, failpoint_dir=failpoint_dir)
        self._tracer = tracer
        SqlSpans(tracer).listen(engine)

    def _apply(
        self,
        connection: Connection,
        transaction: RootTransaction,
        shards: Sequence[int],
        waiting: Sequence[StreamEntry],
        suspect: Identity | None,
    ) -> Committed:
        traced = [item.entry for item in waiting if item.entry.traceparent]
        if not traced:
            return super()._apply(connection, transaction, shards, waiting, suspect)
        first, began_at = traced[0], time.time_ns()
        with self._tracer.start_as_current_span(
            _name(first),
            _context(first),
            kind=SpanKind.CONSUMER,
            attributes={"session_relay.entries": len(waiting), **attributes_of(first)},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                committed = super()._apply(connection, transaction, shards, waiting, suspect)
            except Exception as error:  # Without its message, which may quote a value.
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise
            outcomes = {identity_of(result.entry): result for result in committed.applied}
            result = outcomes.get(identity_of(first))
            span.set_attribute("session_relay.outcome", _outcome(result) if result else "put off")
        for entry in traced[1:]:
            if result := outcomes.get(identity_of(entry)):
                other = self._tracer.start_span(
                    _name(entry),
                    _context(entry),
                    kind=SpanKind.CONSUMER,
                    attributes={"session_relay.outcome": _outcome(result), **attributes_of(entry)},
                    links=[Link(span.get_span_context())],
                    start_time=began_at,
                )
                other.end()
        return committed


def _name(entry: Entry) -> str:
    return f"apply {entry.command or 'event'}"


def _context(entry: Entry) -> Context:
    return _PROPAGATOR.extract({"traceparent": entry.traceparent})


def _outcome(result: ApplyResult) -> str:
    return result.status

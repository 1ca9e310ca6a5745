"""The path of a webhook with traces: a span from the request to its answer, and within it one of the push.

Only webhooks of authenticated senders have spans. Imports OpenTelemetry.
"""

from __future__ import annotations

import time
from typing import Any

from msgspec.structs import replace
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.responses import Response

from models.errors import RelayError
from models.process.tracing import attributes_of
from models.queue.inbox import Entry, inbox_key, shard_of
from relay.auth.authentication import Caller
from relay.ingest.pipeline import Admitted, Pipeline, Sender
from relay.ingest.pusher import Pushed

SERVER_ERROR = 500
"""The least status that is an error of this server."""

_PROPAGATOR = TraceContextTextMapPropagator()


class TracedPipeline(Pipeline):
    """A pipeline whose entries carry their trace to the worker."""

    def __init__(self, tracer: Tracer, **parts: Any) -> None:
        super().__init__(**parts)
        self._tracer = tracer
        self._untraced = Pipeline(**parts)
        """For webhooks that are not sampled: the second span, though it records nothing, would take as long again."""

    def push_at_once(self, *_: Any, **__: Any) -> bool:
        """Leave all requests to `run`, whose tasks keep their spans apart."""
        return False

    async def deliver(self, sender: Sender, caller: Caller, admitted: Admitted) -> Response:
        """Deliver within a span that continues the trace of the sender's `traceparent`."""
        entry = admitted.entry
        told = {name: value for name in _PROPAGATOR.fields if (value := sender.headers.get(name))}
        span = self._tracer.start_span(
            f"accept {entry.command or 'event'}",
            _PROPAGATOR.extract(told),
            kind=SpanKind.SERVER,
            start_time=time.time_ns() - int((time.perf_counter() - sender.begun_at) * 1e9),
        )
        if not span.is_recording():
            return await self._untraced.deliver(sender, caller, admitted)
        span.set_attributes({"http.request.method": sender.method, **attributes_of(entry)})
        with use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                response = await super().deliver(sender, caller, admitted)
            except RelayError as error:
                span.set_attributes({"http.response.status_code": error.status, "error.type": error.code})
                if error.status >= SERVER_ERROR:
                    span.set_status(Status(StatusCode.ERROR, error.code))
                raise
            span.set_attribute("http.response.status_code", response.status_code)
            return response

    async def push(self, entry: Entry, sender: Sender | None = None) -> Pushed:
        """Push within a span, which the entry names as its `traceparent` unless the trace is not sampled."""
        with self._tracer.start_as_current_span(
            "push",
            kind=SpanKind.PRODUCER,
            attributes={
                "messaging.system": "redis",
                "messaging.operation.type": "send",
                "messaging.destination.name": inbox_key(shard_of(entry.session_id)),
                **attributes_of(entry),
            },
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            carrier: dict[str, str] = {}
            if span.is_recording():
                _PROPAGATOR.inject(carrier)
            pushed = await super().push(replace(entry, traceparent=carrier.get("traceparent", "")), sender)
            span.set_attribute("session_relay.outcome", pushed.verdict)
            return pushed

"""A collector of OpenTelemetry traces (OTLP over HTTP) on 127.0.0.1, which keeps all spans that processes send."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PATH = "/v1/traces"


class CollectedSpan(NamedTuple):
    """A span, with ids in hex. `process` is the name of its service."""

    process: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    linked_ids: tuple[str, ...]
    attributes: dict[str, str]
    events: tuple[str, ...]


class TraceCollector:
    """The collector. Its URL is a value for OTEL_EXPORTER_OTLP_ENDPOINT."""

    def __init__(self) -> None:
        self.spans: list[CollectedSpan] = []
        self.received = b""
        """All that was sent."""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.received += body
                collector.spans += _spans_of(body)
                self.send_response(200 if self.path == PATH else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> TraceCollector:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def trace(self, trace_id: str) -> list[CollectedSpan]:
        """Return the spans of a trace so far."""
        return [span for span in self.spans if span.trace_id == trace_id]


def _spans_of(body: bytes) -> Iterable[CollectedSpan]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        process = _texts(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield CollectedSpan(
                    process=process,
                    name=span.name,
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    linked_ids=tuple(link.span_id.hex() for link in span.links),
                    attributes=_texts(span.attributes),
                    events=tuple(event.name for event in span.events),
                )


def _texts(attributes: Iterable[Any]) -> dict[str, str]:
    return {item.key: item.value.string_value or str(item.value.int_value) for item in attributes}

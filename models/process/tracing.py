"""Traces by OpenTelemetry, where OTEL_EXPORTER_OTLP_ENDPOINT is set. Its packages are imported only then."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from threading import Thread
from typing import TYPE_CHECKING, Any

from models.errors import SettingsError
from models.process.log_lines import session_fingerprint
from models.process.missing_packages import describe_wheel
from models.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from models.queue.inbox import Entry

EXPORTER, SDK = "opentelemetry.exporter.otlp.proto.http", "opentelemetry.sdk"
EXPORT_SECONDS = 2
"""For one export."""
LAST_SECONDS = 3
"""For all exports before the process ends: a full queue takes several."""


class Tracing:
    """The traces of one process, which a thread sends to the endpoint."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self.tracer = provider.get_tracer("session-relay")

    def stop(self) -> None:
        """Send the last spans, for LAST_SECONDS at most. Those that are left then are lost."""
        sending = Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        sending.join(LAST_SECONDS)


def start_tracing(settings: Settings, *, process: str) -> Tracing | None:
    """Start the traces of this process, or return None without an endpoint. The other variables of OpenTelemetry, such
    as OTEL_TRACES_SAMPLER, have their usual meaning. Raises SettingsError if its packages are not installed."""
    if not settings.otel_exporter_otlp_endpoint:
        return None
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise SettingsError(_missing(error.name)) from error
    # Its warnings about each attempt have another text each time; the failure of all is logged once, and then counted.
    logging.getLogger(OTLPSpanExporter.__module__).setLevel(logging.ERROR)
    # Those about the headers of senders would quote them.
    logging.getLogger(trace.__name__).setLevel(logging.ERROR)
    names = {"service.namespace": "session-relay", "service.name": process}
    given = {} if os.environ.get("OTEL_SERVICE_NAME") else names
    # Not the global provider: other libraries would add spans of their own, with what they hold.
    provider = TracerProvider(resource=Resource.create(given), shutdown_on_exit=False)
    endpoint = f"{settings.otel_exporter_otlp_endpoint.rstrip('/')}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS)))
    return Tracing(provider)


def check_tracing(settings: Settings) -> None:
    """Raise SettingsError if traces are on and their packages are not installed. Does not import them."""
    if not settings.otel_exporter_otlp_endpoint:
        return
    try:
        found = find_spec(EXPORTER) and find_spec(SDK)
    except ModuleNotFoundError:  # Not even the package around it.
        found = None
    if found is None:
        raise SettingsError(_missing("opentelemetry"))


def _missing(package: str | None) -> str:
    return (
        f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but {package} is not installed. Install the packages of "
        f"requirements-traces.txt, or {describe_wheel('traces')}."
    )


def attributes_of(entry: Entry) -> dict[str, Any]:
    """Return the attributes of spans about an entry: as in the logs, without content."""
    attributes = {
        "session_relay.delivery_id": entry.delivery_id,
        "session_relay.source": entry.source,
        "session_relay.command": entry.command,
    }
    if entry.session_id:
        attributes["session_relay.session"] = session_fingerprint(entry.session_id)
    return attributes

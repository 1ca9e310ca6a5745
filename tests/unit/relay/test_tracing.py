"""Traces are off unless a collector is named, and then nothing of OpenTelemetry is imported."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from models.errors import SettingsError
from models.process.tracing import LAST_SECONDS, start_tracing
from models.settings import read_settings
from tests.support.project import ROOT
from worker.traces.sql_spans import summarize

FULL_QUEUE = 2_048
START = """
import sys
from models.settings import read_settings
from relay.app import create_relay
from worker.jobs import prepare
settings = read_settings({
    "REDIS_URL": "redis://127.0.0.1:1/0", "API_KEY": "k" * 32, "EMBEDDINGS": "off",
    "DATABASE_URL": "postgresql://u@127.0.0.1:1/d",
})
relay, runtime = create_relay(settings), prepare(settings)
print(*sys.modules, type(runtime.drain).__name__)
"""


def test_without_a_collector_nothing_is_imported_and_the_plain_classes_work() -> None:
    command = [sys.executable, "-P", "-c", START]
    done = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    *modules, drain = done.stdout.split()
    assert drain == "Drain"
    assert "sqlalchemy" in modules
    # redis-py imports the SDK's metrics wherever it finds them.
    ours = ("opentelemetry.exporter", "opentelemetry.trace.propagation.tracecontext", "requests", "google.protobuf")
    assert [name for name in modules if name.startswith(ours) or "traced_" in name] == []
    assert start_tracing(read_settings({}), process="relay") is None


@pytest.mark.parametrize("url", ["localhost:4318", "http://", "http://a b", "ftp://host", "http://host/ö"])
def test_an_invalid_collector_is_reported(url: str) -> None:
    with pytest.raises(SettingsError, match="OTEL_EXPORTER_OTLP_ENDPOINT is not valid"):
        read_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": url})


def test_a_collector_may_have_a_path() -> None:
    for url in ("http://127.0.0.1:4318", "https://otlp.example/otlp", "http://[::1]:4318/"):
        assert read_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": url}).otel_exporter_otlp_endpoint == url


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    settings = read_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
    with pytest.raises(SettingsError, match="is not installed"):
        start_tracing(settings, process="relay")


@pytest.mark.parametrize("away", ["opentelemetry.exporter", "opentelemetry.sdk"])
def test_a_supervisor_of_workers_does_not_start_without_the_packages(away: str) -> None:
    hide = f"import sys; sys.modules[{away!r}] = None; from worker.supervisor import main; sys.exit(main())"
    given = {"DATABASE_URL": "postgresql://u@127.0.0.1:1/d", "REDIS_URL": "redis://127.0.0.1:1/0"}
    environment = {**given, "PYTHONPATH": str(ROOT), "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    command = [sys.executable, "-P", "-c", hide]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert "is not installed. Install the packages of requirements-traces.txt" in done.stderr


def test_a_collector_that_hangs_delays_the_stop_by_a_few_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        tracing = start_tracing(read_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": url}), process="relay")
        assert tracing is not None
        for _ in range(FULL_QUEUE):
            tracing.tracer.start_span("x").end()
        began_at = time.monotonic()
        tracing.stop()
        assert time.monotonic() - began_at < LAST_SECONDS + 1


def test_what_a_sender_says_about_its_trace_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    tracing = start_tracing(read_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}), process="relay")
    assert tracing is not None
    trace_id, span_id = "1" * 32, "2" * 16
    for state in ("secret of the sender", "x" * 8_000):
        told = {"traceparent": f"00-{trace_id}-{span_id}-01", "tracestate": state}
        span = get_current_span(TraceContextTextMapPropagator().extract(told)).get_span_context()
        assert format(span.trace_id, "x") == trace_id
    # The exporter of another test may log that it fails.
    shown = "\n".join(caplog.messages)
    assert "secret" not in shown
    assert "xxx" not in shown
    tracing.stop()


@pytest.mark.parametrize(
    ("statement", "summary"),
    [
        ("SELECT pg_try_advisory_xact_lock(1)", "SELECT"),
        ("SELECT a, 'b' FROM deliveries JOIN sessions USING (x)", "SELECT deliveries sessions"),
        ("INSERT INTO memories SELECT FROM unnest(%s) ; UPDATE sessions SET a = 1", "INSERT UPDATE memories sessions"),
        ("SET LOCAL statement_timeout = '10s'; SET LOCAL timezone = 'UTC'", "SET"),
        ("", ""),
    ],
)
def test_a_statement_is_summarized_without_its_values(statement: str, summary: str) -> None:
    assert summarize(statement) == summary

"""Traces are off unless a collector is named, and then nothing of OpenTelemetry is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

from models.errors import SettingsError
from models.process.tracing import start_tracing
from models.settings import read_settings
from tests.support.project import ROOT
from worker.traces.sql_spans import summarize

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

"""Traces: from the sender's `traceparent` through relay, inbox and worker to the statements, in one trace."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.servers.embedded import EmbeddedServer
from tests.support.ports import free_port
from tests.support.processes.serving import Serving, Stopwatch, memory
from tests.support.processes.stack import Stack, envelope, new_id, new_stack, wait_for
from tests.support.processes.trace_collector import CollectedSpan, TraceCollector

SECRET = "nobody-may-read-this-in-a-trace"
LONGEST_STOP_SECONDS = 8
FAILURE = "Failed to export spans"
SAMPLED, NOT_SAMPLED = "01", "00"


@pytest.fixture(scope="module")
def collector() -> Iterator[TraceCollector]:
    with TraceCollector() as collector:
        yield collector


@pytest.fixture(scope="module")
def traced(
    postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory, collector: TraceCollector
) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("traced") / "stack"
    with new_stack(postgres, folder, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_BSP_SCHEDULE_DELAY="100") as stack:
        yield stack


def store(stack: Stack, session_id: str, *, flags: str = SAMPLED, query: str = "?wait=30") -> tuple[str, str]:
    """Store a memory as part of a trace of the sender's. Returns the ids of the trace and of the sender's span."""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    headers = {"traceparent": f"00-{trace_id}-{span_id}-{flags}"}
    body = envelope("store_memory", session_id, key=new_id("key"), content=SECRET)
    answer = stack.client.post(f"/v1/webhook{query}", json=body, headers=headers)
    assert answer.status_code in (200, 202), answer.text
    return trace_id, span_id


def find(collector: TraceCollector, trace_id: str, name: str) -> CollectedSpan:
    """Return the span with this name, once it has arrived."""
    [span] = wait_for(lambda: [span for span in collector.trace(trace_id) if span.name == name], what=f"span {name}")
    return span


def test_one_trace_leads_from_the_sender_through_all_processes_to_the_statements(
    traced: Stack, collector: TraceCollector
) -> None:
    session_id = new_id("traced")
    traced.send("create_session", session_id, title=f"Title {SECRET}")
    trace_id, sender = store(traced, session_id)
    accepted, pushed, applied = (
        find(collector, trace_id, name) for name in ("accept store_memory", "push", "apply store_memory")
    )
    assert [span.process for span in (accepted, pushed, applied)] == ["relay", "relay", "worker"]
    assert (accepted.parent_id, pushed.parent_id, applied.parent_id) == (sender, accepted.span_id, pushed.span_id)
    statements = [span for span in collector.trace(trace_id) if span not in (accepted, pushed, applied)]
    assert {(span.process, span.parent_id) for span in statements} == {("worker", applied.span_id)}
    written = [span.name for span in statements if span.name.startswith("INSERT")]
    assert any("memories" in name and "deliveries" in name and "events" in name for name in written), written
    assert applied.events == ("commit",)
    assert accepted.attributes["http.response.status_code"] == "200"
    assert applied.attributes["session_relay.outcome"] == "applied"
    ids = {span.attributes["session_relay.delivery_id"] for span in (accepted, pushed, applied)}
    assert len(ids) == 1
    # No content, no ids of sessions, which may be words of a title, and no keys.
    for told in (SECRET, session_id, traced.api_key):
        assert told.encode() not in collector.received


def test_spans_of_one_transaction_are_linked_to_that_with_the_statements(
    traced: Stack, collector: TraceCollector
) -> None:
    session_id = new_id("together")
    traced.send("create_session", session_id, title="Together")
    traced.stop("worker")
    traces = [store(traced, session_id, query="")[0] for _ in range(3)]
    traced.start("worker")
    first, *others = (find(collector, trace_id, "apply store_memory") for trace_id in traces)
    assert first.linked_ids == ()
    assert [span.linked_ids for span in others] == [(first.span_id,)] * 2
    assert any(span.name.startswith("INSERT") for span in collector.trace(first.trace_id))


def test_a_trace_that_its_sender_does_not_sample_has_no_spans(traced: Stack, collector: TraceCollector) -> None:
    session_id = new_id("unsampled")
    traced.send("create_session", session_id, title="Unsampled")
    unsampled, _ = store(traced, session_id, flags=NOT_SAMPLED)
    sampled, _ = store(traced, session_id)
    find(collector, sampled, "apply store_memory")
    assert collector.trace(unsampled) == []


@pytest.mark.parametrize("traceparent", [b"", b"x" * 8_000, b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01", b"\xff"])
def test_a_sender_with_an_invalid_traceparent_gets_a_trace_of_its_own(
    traced: Stack, collector: TraceCollector, traceparent: bytes
) -> None:
    delivery_id = new_id("odd")
    headers = [(b"traceparent", traceparent), (b"Idempotency-Key", delivery_id.encode())]
    body = envelope("create_session", new_id("odd"), title="Odd")
    answer = traced.client.post("/v1/webhook?wait=30", json=body, headers=headers)
    assert answer.status_code == 200, answer.text

    def arrived() -> list[CollectedSpan]:
        return [
            span for span in list(collector.spans) if span.attributes.get("session_relay.delivery_id") == delivery_id
        ]

    wait_for(lambda: len(arrived()) == 3, what="spans")
    assert len({span.trace_id for span in arrived()}) == 1
    [root] = [span for span in arrived() if not span.parent_id]
    assert root.name == "accept create_session"


def test_a_collector_that_is_away_delays_no_webhook_and_no_stop(own_redis_url: str, tmp_path: Path) -> None:
    away = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    serving = Serving("relay", tmp_path, REDIS_URL=own_redis_url, **away)
    for number in range(20):
        assert serving.post(memory(text=number)).status_code == 202
    wait_for(lambda: FAILURE in serving.log(), what="the failure logged")
    watch = Stopwatch()
    serving.close()
    assert watch.seconds < LONGEST_STOP_SECONDS
    assert "Traceback" not in serving.log()
    # Once, and at the end with the count of what followed.
    lines = [line for line in serving.log().splitlines() if "opentelemetry" in line]
    assert len(lines) <= 2
    assert all(FAILURE in line for line in lines)

"""The form of the metrics: names and types that Prometheus expects, and nothing of a server that does not answer."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from api.operations.metric_families import choose_format
from api.operations.metric_snapshot import Tallies
from tests.support.metrics import encoded, parse, snapshot

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
AWAY: dict[str, Any] = {"redis": {"state": "unavailable"}, "inbox": None, "workers": None, "tallies": None}


def test_counters_begin_with_zero_for_each_value_of_their_label() -> None:
    shown = parse(encoded(snapshot()))
    for status in ("applied", "rejected", "parked", "failed", "ignored", "duplicate", "conflict"):
        assert shown.value("deliveries_decided_total", status=status) == 0
    assert shown.value("requests_refused_total", cause="bad_signature") == 0
    assert shown.value("webhooks_accepted_total") == 0
    assert shown.value("apply_seconds_count") == 0


def test_counts_of_all_processes_are_shown_under_their_names() -> None:
    counts = {"webhooks_accepted": 7, "deliveries_decided:failed": 2, "server_errors:503": 3, "of_a_later_version": 1}
    states = [{"waiting_senders": 2, "database_threads_busy:reads": 1}, {"waiting_senders": 3, "of_a_later_version": 9}]
    shown = parse(encoded(snapshot(tallies=Tallies(counts=counts, refusals={"rate": 5, "new": 1}, states=states))))
    assert shown.value("webhooks_accepted_total") == 7
    assert shown.value("deliveries_decided_total", status="failed") == 2
    assert shown.value("server_errors_total", status="503") == 3
    assert shown.value("requests_refused_total", cause="rate") == 5
    assert shown.value("waiting_senders") == 5
    assert shown.value("database_threads_busy", pool="reads") == 1
    assert shown.value("database_threads_busy", pool="claims") == 0
    assert shown.value("processes") == 2
    assert "later_version" not in encoded(snapshot(tallies=Tallies(counts=counts, refusals={}, states=states)))


def test_the_buckets_of_a_histogram_are_cumulative() -> None:
    counts = {
        "accept_seconds:0.005": 3,
        "accept_seconds:1": 2,
        "accept_seconds:inf": 1,
        "accept_seconds:sum": 2_500_000,
    }
    shown = parse(encoded(snapshot(tallies=Tallies(counts=counts, refusals={}, states=[]))))
    buckets = {
        le: shown.value("accept_seconds_bucket", le=le) for le in ("0.0025", "0.005", "0.5", "1.0", "300.0", "+Inf")
    }
    assert buckets == {"0.0025": 0, "0.005": 3, "0.5": 3, "1.0": 5, "300.0": 5, "+Inf": 6}
    assert (shown.value("accept_seconds_count"), shown.value("accept_seconds_sum")) == (6, 2.5)


def test_a_server_that_does_not_answer_leaves_its_numbers_out() -> None:
    whole = parse(encoded(snapshot())).names
    redis_away = parse(encoded(snapshot(**AWAY)))
    postgres_away = parse(encoded(snapshot(postgres_up=False, postgres=None, leases=None)))
    assert (redis_away.value("redis_up"), redis_away.value("postgres_up")) == (0, 1)
    assert (postgres_away.value("redis_up"), postgres_away.value("postgres_up")) == (1, 0)
    assert redis_away.value("dead_letters") == 0
    assert redis_away.value("webhooks_accepted_total") is None
    assert postgres_away.value("dead_letters") is None
    assert postgres_away.value("webhooks_accepted_total") == 0
    assert redis_away.names | postgres_away.names == whole


def test_without_a_limit_of_memory_no_share_is_shown() -> None:
    redis = {"state": "ok", "durable": False, "memory_bytes": 10, "memory_limit_bytes": None}
    shown = parse(encoded(snapshot(redis=redis)))
    assert (shown.value("redis_memory_bytes"), shown.value("redis_memory_ratio")) == (10, None)
    assert shown.value("redis_durable") == 0


@pytest.mark.parametrize(
    "accept", ["", "*/*", "text/plain;version=0.0.4", "\x00;q=x", "application/openmetrics-text;q"]
)
def test_any_accept_header_gets_a_format_that_parses(accept: str) -> None:
    encode, media_type = choose_format(accept)
    assert media_type.startswith(("text/plain", "application/openmetrics-text"))
    reader = parse_openmetrics if "openmetrics" in media_type else text_string_to_metric_families
    assert len(list(reader(encode(snapshot()).decode()))) > 30


def test_both_formats_have_the_same_samples() -> None:
    encode, media_type = choose_format(OPENMETRICS)
    assert media_type.startswith("application/openmetrics-text")
    samples = {sample.name for family in parse_openmetrics(encode(snapshot()).decode()) for sample in family.samples}  # type: ignore[no-untyped-call]
    assert samples == parse(encoded(snapshot())).names


def test_names_follow_the_conventions_of_prometheus() -> None:
    for family in text_string_to_metric_families(encoded(snapshot())):
        assert family.name.startswith("session_relay_")
        assert family.documentation.endswith(".")
        assert family.name.isascii()
        assert family.name.islower()
        assert not family.name.endswith(("_milliseconds", "_ms", "_percent", "_megabytes", "_count"))

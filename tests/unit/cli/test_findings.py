"""The findings of `doctor` for each status, including ones that are hard to bring about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cli.doctor.findings import Finding, judge, judge_clock, judge_disk

GOOD: dict[str, Any] = {
    "webhooks": {"taken": True, "reason": None},
    "redis": {
        "state": "ok",
        "durable": True,
        "weakness": None,
        "memory_bytes": 10,
        "memory_limit_bytes": 1_000,
        "memory_share": 0.01,
    },
    "postgres": {
        "state": "ok",
        "durable": True,
        "weakness": None,
        "revision": "0002",
        "needed_revision": "0002",
        "dead_letters": 0,
    },
    "workers": {"alive": 2, "busy": 0, "sweeper": True},
    "inbox": {"waiting": 0, "limit": 100, "oldest_seconds": None},
}


def judged(part: str, **changes: Any) -> dict[str, Finding]:
    """Return the findings that are not ok."""
    status = {**GOOD, part: {**GOOD[part], **changes}}
    return {finding.check: finding for finding in judge(status) if finding.state != "ok"}


def test_a_good_status_has_no_trouble() -> None:
    assert judged("redis") == {}
    assert len([*judge(GOOD)]) == 10


@pytest.mark.parametrize(
    ("part", "changes", "check", "state", "remedy"),
    [
        ("redis", {"memory_share": 0.6}, "redis memory", "warning", "maxmemory"),
        ("redis", {"memory_share": 0.8}, "redis memory", "trouble", "maxmemory"),
        ("redis", {"memory_share": None, "memory_limit_bytes": None}, "redis memory", "warning", "maxmemory"),
        ("redis", {"durable": False, "weakness": "Redis has x"}, "redis durability", "trouble", "appendonly yes"),
        ("postgres", {"durable": False, "weakness": "fsync off"}, "postgres durability", "trouble", "fsync"),
        ("postgres", {"revision": None}, "schema", "trouble", "db upgrade"),
        ("postgres", {"revision": "0001"}, "schema", "trouble", "db upgrade"),
        ("postgres", {"revision": "0003"}, "schema", "trouble", "Update the app"),
        ("postgres", {"dead_letters": 3}, "dead letters", "warning", "dead-letters list"),
        (
            "postgres",
            {"search": {"method": "hybrid", "model": "m", "is_loading": True, "not_embedded": 0}},
            *("search", "warning", "Wait"),
        ),
        ("workers", {"alive": 0}, "workers", "trouble", "python -m worker"),
        ("workers", {"sweeper": False}, "workers", "trouble", "python -m worker"),
        ("inbox", {"waiting": 50}, "backlog", "warning", "half of the backlog"),
        ("inbox", {"waiting": 100}, "backlog", "trouble", "MAX_BACKLOG"),
        ("inbox", {"waiting": 1, "oldest_seconds": 31.0}, "backlog", "warning", "worker's log"),
        ("webhooks", {"taken": False, "reason": "Why."}, "webhooks", "trouble", "below"),
    ],
)
def test_each_trouble_has_its_remedy(part: str, changes: dict[str, Any], check: str, state: str, remedy: str) -> None:
    found = judged(part, **changes)
    assert list(found) == [check]
    assert found[check].state == state
    assert remedy in found[check].remedy


def test_a_backlog_while_postgres_is_down_is_not_reported_separately() -> None:
    status = {**GOOD, "postgres": {"state": "unavailable"}, "inbox": {**GOOD["inbox"], "oldest_seconds": 99.0}}
    assert [finding.check for finding in judge(status) if finding.state != "ok"] == ["postgres"]


@pytest.mark.parametrize(
    ("seconds", "state"), [(0, "ok"), (20, "ok"), (-60, "warning"), (60, "warning"), (400, "trouble")]
)
def test_clocks_are_compared(seconds: int, state: str) -> None:
    assert judge_clock((datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()).state == state


@pytest.mark.parametrize(
    ("free", "share", "state"), [(2**40, 0.5, "ok"), (2**40, 0.05, "warning"), (2**20, 0.5, "trouble")]
)
def test_a_full_disk_is_reported(free: int, share: float, state: str) -> None:
    assert judge_disk(free, share, ".data").state == state

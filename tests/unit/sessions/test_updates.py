"""The line about tasks that a source delegated in other sessions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from sessions.responses.task_updates import Elsewhere, Listener, describe_elsewhere

NOW = datetime(2026, 11, 1, tzinfo=UTC)


def found(session_id: str, status: str = "completed", count: int = 1, title: str = "Bike rental") -> Elsewhere:
    return Elsewhere(session_id=session_id, title=title, status=status, count=count, updated_at=NOW)


def listener(**fields: Any) -> Listener:
    return Listener(**{"session_id": "here", "source": "chat"} | fields)


def test_only_other_sessions_visible_to_the_key_are_listed() -> None:
    news = [found("here"), found("team-1"), found("other-1", count=4)]
    [line] = describe_elsewhere(news, listener(session_glob="team-*"))
    assert (line["message"], line["session_ids"]) == ('1 task finished in "Bike rental".', ["team-1"])
    assert describe_elsewhere(news, listener(session_glob="none-*")) == []
    assert describe_elsewhere(news[:1], listener()) == []
    assert describe_elsewhere(news, listener(may_read=False)) == []


@pytest.mark.parametrize(
    ("news", "message"),
    [
        ([found("a", count=2)], '2 tasks finished in "Bike rental".'),
        ([found("a"), found("a", "input_required")], '1 task asks and 1 finished in "Bike rental".'),
        (
            [found("a"), found("b", "failed", title="Trip"), found("c", count=200), found("d", count=3)],
            '1 task finished in "Bike rental", 1 failed in "Trip", 200 finished in "Bike rental" and 3 more.',
        ),
    ],
)
def test_the_line_counts_finished_failed_and_asking_tasks(news: list[Elsewhere], message: str) -> None:
    [line] = describe_elsewhere(news, listener())
    assert line["message"] == message


def test_the_line_is_short_even_with_long_titles() -> None:
    statuses = ("input_required", "failed", "completed")
    news = [found(name, status, 60, "x" * 256) for name in "abcdef" for status in statuses]
    [line] = describe_elsewhere(news, listener())
    assert line["message"].endswith('" and 720 more.')
    assert len(line["message"]) <= 200
    assert line["session_ids"] == ["a", "b"]

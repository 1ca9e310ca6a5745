"""Times as text: ages and future times are told apart, and each field accepts one of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from models.commands.payloads import parse_envelope
from models.errors import Invalid
from models.timestamps import is_relative, parse_moment

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("30m", timedelta(minutes=30)),
        ("2h", timedelta(hours=2)),
        ("2 hours ago", timedelta(hours=2)),
        ("7d", timedelta(days=7)),
        ("1 week", timedelta(weeks=1)),
        ("99999w", timedelta(weeks=99999)),
    ],
)
def test_an_age_is_in_the_past_and_a_future_time_is_not(text: str, step: timedelta) -> None:
    assert parse_moment(text, field="since", now=NOW) == NOW - step
    ahead = f"in {text.removesuffix(' ago')}"
    assert parse_moment(ahead, field="not_before", now=NOW, ahead=True) == NOW + step
    assert is_relative(text)
    assert is_relative(ahead)


@pytest.mark.parametrize("text", ["in 2h ago", "2x", "in", "2", "h", "٢h", "2h\n", "in  2h", "100000w", "2h or so"])
@pytest.mark.parametrize("ahead", [False, True])
def test_other_texts_are_invalid_times(text: str, ahead: bool) -> None:
    with pytest.raises(Invalid) as refused:
        parse_moment(text, field="since", now=NOW, ahead=ahead)
    assert ("in 30m" in str(refused.value.expected)) is ahead


PAST = [
    ("conversation_chunk", {"content": "x"}, "start_time"),
    ("conversation_chunk", {"content": "x"}, "end_time"),
    *(
        (command, {}, field)
        for command in ("query_memories", "list_tasks", "list_artifacts")
        for field in ("since", "until")
    ),
    ("search", {"q": "x"}, "since"),
    ("search", {"q": "x"}, "until"),
]


def refusal(command: str, data: dict[str, Any]) -> Invalid:
    with pytest.raises(Invalid) as refused:
        parse_envelope(msgspec.json.encode({"command": command, "session_id": "walk", "data": data}))
    return refused.value


@pytest.mark.parametrize(("command", "data", "field"), PAST)
def test_a_future_time_is_refused_where_a_past_one_is_needed(command: str, data: dict[str, Any], field: str) -> None:
    error = refusal(command, {**data, field: "in 2h"})
    assert (error.field, error.hint) == (f"data.{field}", 'For 2h ago write "2h".')
    parse_envelope(msgspec.json.encode({"command": command, "session_id": "walk", "data": {**data, field: "2h"}}))


@pytest.mark.parametrize("text", ["2h", "2 hours ago"])
def test_an_age_is_refused_where_a_future_time_is_needed(text: str) -> None:
    error = refusal("delegate_task", {"description": "x", "not_before": text})
    assert error.message == f"{text!r} is an age, but not_before must be in the future."
    assert (error.field, error.hint) == ("data.not_before", 'For 2h from now write "in 2h".')


@pytest.mark.parametrize("field", ["start_time", "end_time"])
def test_a_time_of_saying_cannot_be_in_the_future(field: str) -> None:
    error = refusal("conversation_chunk", {"content": "x", field: "2999-01-01"})
    assert (error.field, error.message) == (f"data.{field}", f"The {field} is in the future.")

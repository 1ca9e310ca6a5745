"""Extreme values are accepted or refused, and never fail in the store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from models.errors import Rejected
from sessions.backend import Backend
from tests.support.inputs import extremes
from tests.support.stores.sending import SESSION, items, send


@pytest.fixture
def filled(backend: Backend) -> Backend:
    """A session with one item of each kind."""
    send(backend, "create_session", SESSION, title="Walk")
    send(backend, "conversation_chunk", content="a the 漢字 walk", chunk_id="c")
    send(backend, "store_memory", key="k", content="a note", type="note")
    send(backend, "delegate_task", task_id="t", description="a task")
    send(backend, "delegate_task", task_id="done", description="another")
    send(backend, "cancel_task", task_id="done")
    send(backend, "add_artifact", artifact_id="a", name="a", content="a")
    return backend


def test_a_text_of_more_words_than_an_index_holds_is_found_by_its_last_word(backend: Backend) -> None:
    send(backend, "create_session", SESSION, title="Walk")
    send(backend, "store_memory", key="k", content=f"{extremes.distinct_words()} needle")
    [hit] = items(backend, "search", q="needle")
    assert hit["key"] == "k"


def faults(backend: Backend, asked: Sequence[tuple[str, str | None, dict[str, Any]]]) -> list[str]:
    """Return the values that were neither accepted nor refused."""
    found = []
    for command, session_id, data in asked:
        try:
            backend.send(command, data, session_id=session_id)
        except Rejected as error:
            assert error.status < 500
        except Exception as error:
            found.append(f"{type(error).__name__} by {command} {str(data)[:200]}: {str(error)[:100]}")
    return found


@pytest.mark.parametrize("make", [extremes.lists, extremes.reads, extremes.writes])
def test_no_extreme_value_fails_in_the_store(filled: Backend, make: Any) -> None:
    wrong = faults(filled, make(SESSION))
    assert not wrong, "\n".join(wrong)

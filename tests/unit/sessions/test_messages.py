"""Messages about reads."""

from __future__ import annotations

from sessions.reads.messages import counted, found, of_bundle, of_session, of_task


def test_counts_use_singular_and_plural() -> None:
    assert [counted(number, "memory") for number in (0, 1, 2)] == ["no memories", "1 memory", "2 memories"]
    assert counted(2, "action_item") == "2 action items"
    assert counted(2, "hit for some of the words") == "2 hits for some of the words"
    assert counted(2, "hit with a possibly similar meaning") == "2 hits with a possibly similar meaning"


def test_a_list_is_described_in_one_sentence() -> None:
    assert found(2, "decision", where='"Morning walk"', more=False) == 'Found 2 decisions in "Morning walk".'
    assert found(20, "session", where=None, more=True) == "Found 20 sessions, and there are more."


def test_messages_are_short_enough_to_be_read_aloud() -> None:
    stats = {"memories": 10**9, "active_tasks": 10**9}
    sentences = [
        of_session({"title": "x" * 256, "status": "completed", "stats": stats}),
        of_task({"description": "x" * 1_000, "status": "input_required"}),
        of_bundle({"session": {"title": "x" * 256}, "truncated": True}),
    ]
    assert all(len(sentence) <= 200 for sentence in sentences)


def test_a_continued_task_read_has_no_title() -> None:
    assert of_task({"status": "completed"}) == "The task is completed."

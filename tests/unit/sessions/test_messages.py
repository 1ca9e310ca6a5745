"""Messages about reads."""

from __future__ import annotations

from models.commands.definitions import Search
from sessions.reads.messages import counted, found, found_nothing, of_bundle, of_session, of_task, quoted
from sessions.reads.read_commands import answer_list
from sessions.reads.results import Page


def test_counts_use_singular_and_plural() -> None:
    assert [counted(number, "memory") for number in (0, 1, 2)] == ["no memories", "1 memory", "2 memories"]
    assert counted(2, "action_item") == "2 action items"
    assert counted(2, "hit for some of the words") == "2 hits for some of the words"
    assert counted(2, "hit with a possibly similar meaning") == "2 hits with a possibly similar meaning"


def test_a_list_is_described_in_one_sentence() -> None:
    assert found(2, "decision", where='"Morning walk"', more=False) == 'Found 2 decisions in "Morning walk".'
    assert found(20, "session", where=None, more=True) == "Found 20 sessions, and there are more."
    assert found(1, "chunk", where='"Walk"', more=True) == 'Found 1 chunk in "Walk", and the text goes on.'


def test_a_search_without_hits_says_what_to_do_next() -> None:
    everywhere = "all sessions"
    plain = found_nothing(where=everywhere, is_incomplete=False, by_meaning=True)
    assert plain == "Found no hits in all sessions. Try key nouns in the language of the texts."
    words = found_nothing(where=everywhere, is_incomplete=True, by_meaning=False)
    assert words.startswith("Found no hits by words only in all sessions. The search by meaning is not ready yet:")
    assert found_nothing(where=everywhere, is_incomplete=True, by_meaning=True).startswith("Found no hits in all")
    result = answer_list(Search(q="barrel"), Page(items=[], notes={"method": "words"}, is_incomplete=True), title=None)
    assert (result.message, result.data["match"]) == (words, "none")


def test_messages_are_short_enough_to_be_read_aloud() -> None:
    stats = {"memories": 10**9, "active_tasks": 10**9}
    sentences = [
        of_session({"title": "x" * 256, "status": "completed", "stats": stats}),
        of_task({"description": "x" * 1_000, "status": "input_required"}),
        of_bundle({"session": {"title": "x" * 256}, "truncated": True}),
        found_nothing(where=quoted("x" * 256), is_incomplete=True, by_meaning=False),
    ]
    assert all(len(sentence) <= 200 for sentence in sentences)


def test_a_continued_task_read_has_no_title() -> None:
    assert of_task({"status": "completed"}) == "The task is completed."

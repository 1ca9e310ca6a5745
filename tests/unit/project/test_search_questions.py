"""The questions of `make bench-search`: each has its target, and those about meaning share no words with it."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest

from bench.search.evaluation import (
    Half,
    Language,
    Outcome,
    Question,
    QuestionKind,
    Target,
    judge,
    read_corpus,
    read_questions,
    score,
    texts_of,
)
from tests.support.inputs.content_words import content_words

TEXTS = texts_of(read_corpus())
QUESTIONS = read_questions()
LONG_TEXT = 3_000
"""Characters from which a text is long; the middle of it is what no excerpt of its beginning or end shows."""


def test_every_expected_id_is_in_the_corpus() -> None:
    assert {target for question in QUESTIONS for target in question.targets} <= TEXTS.keys()
    assert all(question.expected for question in QUESTIONS)


def test_no_question_is_asked_twice() -> None:
    assert [q for q, count in Counter(question.q for question in QUESTIONS).items() if count > 1] == []


@pytest.mark.parametrize("kind", get_args(QuestionKind))
def test_each_kind_has_at_least_twelve_questions_half_of_them_held_out(kind: QuestionKind) -> None:
    halves = Counter(question.half for question in QUESTIONS if question.kind == kind)
    assert halves.total() >= 12
    assert abs(halves["tune"] - halves["held_out"]) <= 1


def test_the_questions_are_in_six_languages_in_both_halves() -> None:
    counts = Counter((question.half, question.language) for question in QUESTIONS)
    assert all(counts[half, language] >= 12 for half in get_args(Half) for language in get_args(Language))


def test_a_paraphrase_or_a_question_in_another_language_shares_no_content_word_with_its_target() -> None:
    shared = {
        question.q: words
        for question in QUESTIONS
        if question.kind in ("paraphrase", "cross_language")
        for target in question.targets
        if (words := content_words(question.q) & content_words(TEXTS[target]))
    }
    assert shared == {}


def test_a_plain_question_shares_a_content_word_with_its_target() -> None:
    strangers = [
        question.q
        for question in QUESTIONS
        if question.kind == "plain"
        and not any(content_words(question.q) & content_words(TEXTS[target]) for target in question.targets)
    ]
    assert strangers == []


@pytest.mark.parametrize(("kind", "wanted"), [("task", "task"), ("session", "session"), ("artifact", "artifact")])
def test_questions_about_a_kind_of_item_expect_it(kind: QuestionKind, wanted: str) -> None:
    assert {target.kind for question in QUESTIONS if question.kind == kind for target in question.targets} == {wanted}


def test_long_questions_ask_for_long_chunks() -> None:
    targets = {target for question in QUESTIONS if question.kind == "long" for target in question.targets}
    assert len(targets) >= 6
    assert {target.kind for target in targets} == {"chunk"}
    assert min(len(TEXTS[target]) for target in targets) > LONG_TEXT


def test_scores_count_first_places_the_first_five_and_reciprocal_ranks() -> None:
    question = Question("tune", "plain", "en", "Where?", ["memory/house/key", "task/house/key"])
    memory, chunk = {"session_id": "house", "key": "key"}, {"session_id": "house", "chunk_id": "key"}
    task, session = {"session_id": "house", "task_id": "key"}, {"session_id": "house"}
    outcomes = [judge(question, hits) for hits in ([memory], [chunk, task], [session] * 9 + [memory], [chunk])]
    assert [outcome.rank for outcome in outcomes] == [1, 2, 10, None]
    assert score(outcomes) == (4, 0.25, 0.5, (1 + 1 / 2 + 1 / 10) / 4)


def test_an_artifact_of_a_task_is_not_taken_for_the_task() -> None:
    question = Question("tune", "artifact", "en", "Which?", ["artifact/house/plan"])
    hit = {"session_id": "house", "artifact_id": "plan", "task_id": "draw"}
    assert judge(question, [hit]) == Outcome(question, 1, [Target("artifact", "house", "plan")])

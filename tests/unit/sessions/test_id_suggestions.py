"""Suggestions for unknown ids: useful for typos, and cheap for any id."""

from __future__ import annotations

import random
import time

from sessions.reads.not_found import CANDIDATES, nearest_of
from sessions.reads.session_names import nearest_sessions


def test_a_misspelt_id_gets_the_intended_one() -> None:
    known = ["solar-roof-plan", "solar-roof-budget", "kitchen", "日本語の計画"]
    assert nearest_of("solar-rof-plan", known)[0] == "solar-roof-plan"
    assert nearest_of("Kitchen", known) == ["kitchen"]
    assert nearest_of("日本の計画", known) == ["日本語の計画"]
    assert nearest_of("garden-shed-42", known) == []


def test_each_id_is_suggested_once_and_three_at_most() -> None:
    known = ["walk-1", "walk-1", "walk-2", "walk-3", "walk-4"]
    assert nearest_of("walk-1", known)[0] == "walk-1"
    assert len(nearest_of("walk-0", known)) == len(set(nearest_of("walk-0", known))) == 3


def test_the_longest_ids_take_a_few_milliseconds_even_if_similar() -> None:
    """Comparing them letter by letter takes more than a second."""
    dice = random.Random(4)
    known = ["".join(dice.choices("abcd", k=199)) for _ in range(CANDIDATES)]
    wanted = "".join(dice.choices("abcd", k=199))
    began_at = time.process_time()
    assert len(nearest_of(wanted, known)) == 3
    assert time.process_time() - began_at < 0.05


def test_a_session_is_suggested_by_its_title_and_exact_ids_come_first() -> None:
    titles = {"s-1": "Kitchen renovation", "kitchen-2": "Something else", "s-3": "Küche", "s-4": "Garden plan"}
    assert list(nearest_sessions("kitchen", titles)) == ["s-1", "kitchen-2"]
    assert list(nearest_sessions("kuche", titles)) == ["s-3"]
    assert nearest_sessions("garden-shed-42", titles) == {}

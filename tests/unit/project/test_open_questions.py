"""Every open question of the execution plan is answered in two lines, with the setting or page that implements it."""

from __future__ import annotations

import re

import pytest

from tests.support.project import ROOT

PAGE = (ROOT / "docs" / "OPEN_QUESTIONS.md").read_text()
ENTRIES = re.findall(r"^\*\*(.+?\?)\*\*(.*?)(?=\n\n|\n*\Z)", PAGE, re.MULTILINE | re.DOTALL)
SUBJECTS = ("MCP tools configuration", "Client deployment", "API design", "Error handling", "Security", "Performance")


def test_there_are_three_questions_for_each_subject() -> None:
    parts = re.split(r"^## (.+)$", PAGE, flags=re.MULTILINE)
    assert tuple(parts[1::2]) == SUBJECTS
    assert [part.count("?**") for part in parts[2::2]] == [3] * len(SUBJECTS)
    assert len(ENTRIES) == 3 * len(SUBJECTS)


@pytest.mark.parametrize(("question", "answer"), ENTRIES, ids=[question for question, _ in ENTRIES])
def test_each_answer_has_two_lines_and_names_what_implements_it(question: str, answer: str) -> None:
    assert len(f"{question}{answer}".splitlines()) == 2
    assert re.search(r"\]\([^)]+\)", answer), "no page is linked"

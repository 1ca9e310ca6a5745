"""Parsing queries, and marking hits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sessions.reads.search_query import MARK, MOST_WORDS, any_of, mark, normalize_marks, parse_query


def test_words_and_runs_without_spaces_are_distinguished() -> None:
    wording = parse_query("Postgres 数据库选择 now")
    assert wording.text.split() == ["Postgres", "now"]
    assert wording.runs == ["数据库选择"]
    assert wording.parts == ["数据", "据库", "库选", "选择"]


def test_thai_is_split_into_groups_of_four_and_single_characters_are_kept() -> None:
    assert parse_query("ข้อมูล").parts == ["ข้อม", "้อมู", "อมูล"]
    assert parse_query("水").parts == ["水"]


def test_excluded_words_are_not_searched_for() -> None:
    wording = parse_query('roof -solar -"heat pump" -数据 well-known')
    assert wording.wanted.split() == ["roof", "well-known"]
    assert wording.unwanted == ["solar", '"heat pump"']
    assert "-solar" in wording.text
    assert wording.runs == []


def test_several_dashes_count_as_one() -> None:
    assert parse_query("a " + "- " * 400 + "b").text == "a - b"
    assert parse_query("-(-!-&-:-'-b").text == "-b"
    assert parse_query("漢" * 3 + "-漢" * 3 + " -b").text.count("-") == 1
    assert parse_query('solar--roof a--b -c -"d"').text == 'solar--roof a--b -c -"d"'


def test_lexemes_are_quoted_and_long_ones_match_by_prefix() -> None:
    assert any_of(["it's", "\\b", "roof", "ab"]) == ["'it''s':*", "'roof':*", "'\\\\b'", "'ab'"]
    assert len(any_of([f"word{number}" for number in range(100)])) == MOST_WORDS


def test_adjacent_occurrences_are_marked_as_one() -> None:
    assert mark("我们选择了数据库", ["我们", "数据", "据库"]) == "**我们**选择了**数据库**"
    assert mark("aaa", ["aa"]) == "**aaa**"
    assert mark("", ["a"]) == ""


@given(st.text(), st.lists(st.text(min_size=1, max_size=3), max_size=5))
def test_marks_change_nothing_else(text: str, needles: list[str]) -> None:
    text = text.replace("*", "")
    assert mark(text, needles).replace(MARK, "") == text


@given(st.text(max_size=2_000))
def test_a_snippet_is_one_short_line_with_marks_in_pairs(text: str) -> None:
    snippet = normalize_marks(text.replace("*", "") + " **found** " + "word " * 200)
    assert len(snippet) <= 410
    assert "\n" not in snippet
    assert "**found**" in snippet
    assert snippet.count(MARK) % 2 == 0

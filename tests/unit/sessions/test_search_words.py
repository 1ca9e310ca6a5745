"""Words of texts and queries, passages, and snippets."""

from __future__ import annotations

import random
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from sessions.postgres.commands.passage_rows import row_of
from sessions.search.passages import OVERLAP_WORDS, PASSAGE_WORDS, divide, readable
from sessions.search.query import MOST_TERMS, parse_query
from sessions.search.snippets import MARK, snippet
from sessions.search.stop_words import language_of
from sessions.search.typing_errors import mistyped, neighbours
from sessions.search.words import LONGEST_WORD, MOST_PARTS, compounds_in, numbers_in, placed_forms, split_words
from tests.support.stores.passages import passage


def forms(text: str) -> set[str]:
    return {form for word in split_words(text) for form in (*word.forms, *word.wholes)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("getUserName", {"get", "user", "name", "getusername"}),
        ("HTTPServer2", {"http", "server", "2", "httpserver2"}),
        ("src/app/main_loop.py", {"src", "app", "main", "loop", "py", "srcappmainlooppy"}),
        ("Optional<Invoice>", {"optional", "invoice"}),
        ("v1.2.3", {"1", "2", "3", "v123"}),
        ("ABC-123", {"abc", "123", "abc123"}),
        ("1,200.50", {"120050"}),
        ("+43 664 555-0137", {"664", "436645550137", "5550137"}),
        ("https://example.com/a?b=c", {"https", "example", "com"}),
        ("don’t", {"don", "dont"}),
        ("rm -rf", {"rm", "rf"}),
        ("Straße ÀÉ Jörg", {"strasse", "ae", "jorg"}),
        ("ﬁle ２０２６", {"file", "2026"}),
        ("مُحَمَّد", {"محمد"}),
        ("हिन्दी", {"हिन्दी"}),
        ("databases", {"databases", "databas"}),
        ("数据库", {"数据", "据库", "库"}),
        ("数DB库", {"数", "db", "库"}),
        ("party 🎉", {"party", "🎉"}),
    ],
)
def test_a_text_has_the_words_their_stems_and_the_whole_of_identifiers(text: str, expected: set[str]) -> None:
    assert expected <= forms(text)


def test_encoded_data_is_not_split_at_each_change_of_case() -> None:
    assert len(list(split_words("aB" * 1_000))) == 1
    assert max(map(len, forms("x" * 10_000))) == LONGEST_WORD


@given(st.text())
def test_words_are_at_their_places_in_order(text: str) -> None:
    words = list(split_words(text))
    assert all(word.start < word.end <= len(text) for word in words)
    assert [word.start for word in words] == sorted(word.start for word in words)
    assert all(form for word in words for form in word.forms)


@given(st.text())
def test_the_index_has_the_same_words_as_a_text_that_is_split(text: str) -> None:
    words = list(split_words(text))
    language = language_of(text)
    placed = [placed_forms(compound, language) for compound in compounds_in(text)]
    assert sum(number for number, _ in placed) == len(words)
    indexed = {form for _, found in placed for _, form in found}
    assert indexed | {whole for wholes in numbers_in(text).values() for whole in wholes} == forms(text)


@pytest.mark.parametrize(
    ("parts", "number"),
    [
        (list("的一是不了人我在有他"), LONGEST_WORD),
        (["Ab", "Cd", "Ef", "Gh", "Ij", "Kl"], MOST_PARTS),
        (list("0123456789abcdef"), 2_000),
    ],
    ids=["clauses", "identifiers", "encoded"],
)
def test_words_that_do_not_repeat_stay_out_of_memory(parts: list[str], number: int) -> None:
    chosen = random.Random(1)
    tracemalloc.start()
    for _ in range(500):
        row_of(replace(passage(), text="".join(chosen.choices(parts, k=number))))
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 400_000


def test_the_words_of_an_identifier_have_places_of_their_own() -> None:
    assert placed_forms("main_loops", "english") == (2, [(0, "main"), (0, "mainloops"), (1, "loops"), (1, "loop")])


def test_words_have_their_stems_in_the_language_of_the_text() -> None:
    assert "datenbank" in forms("Das sind die Datenbanken")
    assert "bas" in forms("Ce sont des bases")
    assert "haus" in {form for term in parse_query("Häuser").terms for form in term.forms}


def test_stop_words_count_only_in_a_query_of_nothing_else() -> None:
    assert [term.forms[0] for term in parse_query("what did we decide about the database").terms] == [
        "decide",
        "database",
    ]
    assert [term.forms[0] for term in parse_query("the").terms] == ["the"]


def test_excluded_words_are_not_searched_for() -> None:
    query = parse_query('roof -solar -"heat pump" well-known')
    assert [term.forms[0] for term in query.terms if not term.is_whole] == ["roof", "well", "known"]
    assert query.unwanted == [["solar"], ["heat", "pump"]]


def test_a_short_word_after_a_dash_is_a_flag() -> None:
    query = parse_query("rm -rf")
    assert [term.forms[0] for term in query.terms] == ["rm", "rf"]
    assert query.unwanted == []


def test_quotes_make_phrases_and_or_makes_choices() -> None:
    assert parse_query('"solar roof" power').phrases == [["solar", "roof"]]
    query = parse_query("wind OR power")
    assert query.is_full({0})
    assert query.is_full({1})
    assert not parse_query("wind power").is_full({0})


def test_the_shortest_of_too_many_words_are_dropped() -> None:
    query = parse_query(" ".join(f"word{'x' * number}" for number in range(100)))
    assert len(query.terms) == MOST_TERMS


def test_neighbours_differ_by_one_typing_error() -> None:
    found = set(neighbours("databse"))
    assert {"database", "datbse", "databes", "datebse", "atabse", "databsee"} <= found


@given(st.text(max_size=6_000))
def test_passages_overlap_and_leave_nothing_out(text: str) -> None:
    passages = list(divide(passage(), text))
    end = 0
    for number, part in enumerate(passages):
        assert part.number == number
        assert part.start <= end
        assert text[part.start :].startswith(part.text)
        end = part.start + len(part.text)
    assert end == len(text)


def test_long_texts_are_divided_at_words() -> None:
    passages = list(divide(passage(), "word " * 1_000))
    assert {len(part.text.split()) for part in passages[:-1]} == {PASSAGE_WORDS}
    assert passages[1].start == (PASSAGE_WORDS - OVERLAP_WORDS) * len("word ")
    assert max(len(part.text) for part in divide(passage(), "x" * 100_000)) <= 24 * PASSAGE_WORDS


def test_json_is_shown_with_names_a_line_for_each_value() -> None:
    assert readable(Raw(b'{"what":"Call","who":["Ana","Ben"],"done":false,"due":null}')) == (
        "what: Call\nwho: Ana\nwho: Ben\ndone: false"
    )
    assert readable(Raw(b'"text"')) == "text"
    assert readable(Raw(b"[" * 500 + b"]" * 500)) == ""


@given(st.text(max_size=2_000), st.text(max_size=20))
def test_marks_change_nothing_else_and_come_in_pairs(text: str, q: str) -> None:
    text = text.replace("*", "").replace("…", "")
    shown, start = snippet(text, parse_query(q))
    assert len(shown) <= 600
    assert "\n" not in shown
    assert shown.count(MARK) % 2 == 0
    plain = shown.replace(MARK, "").strip("…")
    one_line = " ".join(text.split())
    assert all(part in one_line for part in plain.split(" … "))
    assert " ".join(text[start:].split()).startswith(plain.partition(" … ")[0].strip())


def test_adjoining_hits_share_their_marks() -> None:
    assert snippet("我们选择了数据库", parse_query("数据库")).text == "我们选择了**数据库**"
    assert snippet("in src/app/main.py now", parse_query("app main.py")).text == "in src/**app/main.py** now"
    assert snippet("call getUserName()", parse_query("getusername")).text == "call **getUserName**()"


@pytest.mark.parametrize("q", ["b", "b c d e f g h", '"b c"'])
def test_a_snippet_of_a_text_of_single_letters_takes_no_longer_than_its_splitting(q: str) -> None:
    began_at = time.process_time()
    shown = snippet("b.c." * 10_000, parse_query(q))
    assert time.process_time() - began_at < 2
    assert "**b" in shown.text


def test_long_words_are_not_corrected() -> None:
    query = parse_query("x" * 60 + " databse")
    assert [term.forms[0] for term in mistyped(query.terms, [0.0] * len(query.terms)).values()] == ["databse"]

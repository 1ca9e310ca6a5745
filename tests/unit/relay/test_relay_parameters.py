"""URL parameters are decoded by the definitions of the commands."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from models.commands.definitions import ListSessions, QueryMemories, RetrieveMemory, Search
from models.errors import Invalid
from relay.http.query_parameters import decode_parameters
from relay.ingest.pipeline import WaitParameters


def test_numbers_lists_and_renamed_parameters_are_decoded() -> None:
    query = QueryParams("q=what+is+it&in=memories,artifacts&tags=a&tags=b,c&limit=5&since=7d")
    found = decode_parameters(query, Search)
    assert (found.q, found.limit, found.since) == ("what is it", 5, "7d")
    assert found.areas == ["memories", "artifacts"]
    assert found.tags == ["a", "b", "c"]


def test_path_parameters_are_fields() -> None:
    found = decode_parameters(QueryParams("revision=2"), RetrieveMemory, key="a/b")
    assert (found.key, found.revision) == ("a/b", 2)


def test_an_empty_parameter_is_absent() -> None:
    assert decode_parameters(QueryParams("cursor=&limit="), ListSessions) == ListSessions()


def test_a_number_stays_text_where_text_is_expected() -> None:
    assert decode_parameters(QueryParams("q=123"), Search).q == "123"


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0.0), ("2.5", 2.5), ("40", 40.0), ("4.4e-237", 4.4e-237), ("1E+1", 10.0)]
)
def test_seconds_may_have_a_fraction(text: str, seconds: float) -> None:
    assert decode_parameters(QueryParams({"wait": text}), WaitParameters).wait == seconds


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ("limit=0", "limit", ">= 1"),
        ("limit=501", "limit", "<= 500"),
        ("limit=x", "limit", "int"),
        ("limit=1.5", "limit", "int"),
        ("limit=" + "9" * 50, "limit", "int"),
        ("type=ide", "type", "one of"),
        ("since=yesterday", "since", "Invalid time"),
        ("limit=1&limit=2", "limit", "2 times"),
        ("tags=%00", "tags", "NUL"),
        ("key=x", "key", "Unknown field"),
    ],
)
def test_an_invalid_parameter_is_named(query: str, field: str, says: str) -> None:
    with pytest.raises(Invalid) as caught:
        decode_parameters(QueryParams(query), QueryMemories)
    assert caught.value.field == field
    assert says in f"{caught.value.message} {caught.value.expected}"


@pytest.mark.parametrize("wait", ["-1", "41", "nan", "inf", "1e2", "x", "0x1", "١"])
def test_a_wait_is_from_0_to_40_seconds(wait: str) -> None:
    with pytest.raises(Invalid) as caught:
        decode_parameters(QueryParams({"wait": wait}), WaitParameters)
    assert caught.value.field == "wait"


def test_an_unknown_parameter_gets_the_nearest_known_one() -> None:
    with pytest.raises(Invalid) as caught:
        decode_parameters(QueryParams("q=x&limt=1"), Search)
    assert caught.value.field == "limt"
    assert "'limit'" in str(caught.value.hint)


def test_a_parameter_cannot_contradict_the_path() -> None:
    with pytest.raises(Invalid) as caught:
        decode_parameters(QueryParams("key=x"), RetrieveMemory, key="y")
    assert caught.value.field == "key"


@given(st.lists(st.tuples(st.sampled_from(["q", "in", "tags", "limit", "since", "timezone", "z"]), st.text())))
def test_any_query_is_decoded_or_refused(items: list[tuple[str, str]]) -> None:
    try:
        found = decode_parameters(QueryParams(items), Search)
    except Invalid as error:
        assert error.message
    else:
        assert 1 <= found.limit <= 500

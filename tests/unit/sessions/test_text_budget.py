"""Truncation: nothing exceeds its room, and reading on loses nothing."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw

from sessions.reads.truncation import SMALLEST_PIECE, LongText, cut, fit, measure
from tests.support.project import IS_LONG

texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=400)


def long(text: str, **fields: Any) -> LongText:
    return LongText(text=text, length=len(text), **fields)


@given(texts, st.integers(0, 500), st.booleans())
def test_a_truncated_text_uses_all_its_room(text: str, room: int, from_end: bool) -> None:
    piece = cut(text, room, from_end=from_end)
    assert text.endswith(piece) if from_end else text.startswith(piece)
    assert piece == "" or measure(piece) <= room
    if len(piece) < len(text):
        one_more = text[len(text) - len(piece) - 1 :] if from_end else text[: len(piece) + 1]
        assert measure(one_more) > room


@given(st.lists(texts, max_size=4), st.lists(texts, max_size=20), st.integers(0, 2_000))
@settings(max_examples=200 if IS_LONG else 80)
def test_an_item_fits_if_its_fixed_fields_fit(parts: list[str], names: list[str], room: int) -> None:
    item = {"id": "x", "names": names} | {f"text{number}": long(text) for number, text in enumerate(parts)}
    fitted = fit(item, room)
    assert list(fitted)[: len(item)] == list(item)
    empty: dict[str, Any] = {name: [] if name == "names" else "" if name != "id" else "x" for name in item} | {
        "truncated": True
    }
    assert measure(fitted) <= max(room, measure(empty)) + measure({"truncated": True})


def test_short_texts_stay_whole_while_a_long_one_is_truncated() -> None:
    fitted = fit({"error": long("no disk"), "output": long("x" * 5_000, paged=True)}, 1_000)
    assert fitted["error"] == "no disk"
    assert 900 < len(fitted["output"]) < 1_000
    assert (fitted["truncated"], fitted["next_offset"]) == (True, len(fitted["output"]))


def test_json_that_fits_is_returned_verbatim() -> None:
    whole = Raw(b'{"b": 1e23,  "a": -0.0}')
    fitted = fit({"content": long(bytes(whole).decode(), whole=whole, is_json=True, paged=True)}, 100)
    assert msgspec.json.encode(fitted) == b'{"content":{"b": 1e23,  "a": -0.0}}'


def test_json_that_does_not_fit_is_returned_as_part_of_its_text() -> None:
    text = '{"a": [' + "1, " * 200 + "2]}"
    fitted = fit({"content": long(text, whole=Raw(text.encode()), is_json=True, paged=True)}, 200)
    assert text.startswith(fitted["content"])
    assert fitted["encoding"] == "json"


def test_reading_on_always_advances_however_small_the_room() -> None:
    fitted = fit({"content": LongText(text="x" * 500, length=900, offset=400, paged=True)}, 0)
    assert fitted["next_offset"] == 400 + SMALLEST_PIECE - 2


def test_a_list_is_truncated_at_its_end() -> None:
    fitted = fit({"tags": [f"tag {number}" for number in range(100)]}, 200)
    assert fitted["tags"][0] == "tag 0"
    assert 1 < len(fitted["tags"]) < 20
    assert fitted["truncated"] is True

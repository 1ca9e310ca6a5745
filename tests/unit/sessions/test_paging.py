"""Pages: unforgeable cursors, and as many items as fit."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import Invalid
from sessions.reads.pagination import RowPosition, decode_cursor, encode_cursor, fill
from sessions.reads.truncation import LongText, measure


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0")), st.datetimes())
def test_a_cursor_is_decoded_unchanged(key: str, moment: datetime) -> None:
    position = (moment.replace(tzinfo=UTC), key)
    cursor = encode_cursor(position)
    assert cursor.isascii()
    assert not set(cursor) & set("+/=")
    assert decode_cursor(cursor, tuple[datetime, str]) == position


def test_a_cursor_may_contain_text_that_looks_like_nul() -> None:
    assert decode_cursor(encode_cursor("\\u0000"), str) == "\\u0000"
    with pytest.raises(Invalid):
        decode_cursor(encode_cursor("\0"), str)


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+23:59", "2026-01-01T00:00:00", "2026-01-01T01:00:00+01:00"])
def test_a_time_in_a_cursor_must_be_in_utc(moment: str) -> None:
    with pytest.raises(Invalid):
        decode_cursor(encode_cursor((moment, "s")), tuple[datetime, str])


@given(st.text())
def test_any_other_text_is_refused(cursor: str) -> None:
    try:
        decode_cursor(cursor, tuple[datetime, str])
    except Invalid as error:
        assert error.field == "cursor"


def test_a_cursor_of_another_list_or_out_of_range_is_refused() -> None:
    for position in (("x",), [1, 2], None, 2**63, -1, {"a": 1}, "\0"):
        with pytest.raises(Invalid):
            decode_cursor(encode_cursor(position), RowPosition)


def test_a_page_has_a_cursor_only_if_there_are_more_items() -> None:
    entries = [(number, {"n": number}) for number in range(5)]
    page = fill(entries, limit=4, room=1_000)
    assert [item["n"] for item in page.items] == [0, 1, 2, 3]
    assert decode_cursor(page.next_cursor, RowPosition) == 3
    assert not page.truncated
    assert fill(entries, limit=5, room=1_000).next_cursor is None
    assert fill([], limit=5, room=1_000).items == []


def test_a_page_fits_the_room_but_has_at_least_one_item() -> None:
    entries = [(number, {"text": LongText(text="x" * 400, length=400, paged=True)}) for number in range(5)]
    page = fill(entries, limit=5, room=1_000)
    assert len(page.items) == 2
    assert measure(page.items) <= 1_000
    assert (page.truncated, page.next_cursor) == (True, encode_cursor(1))
    assert len(fill(entries, limit=5, room=10).items) == 1

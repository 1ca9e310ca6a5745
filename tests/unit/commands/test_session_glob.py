"""The pattern of a key: Python and SQL's LIKE match the same sessions."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.access.session_glob import like_pattern, matches_glob, require_visible
from models.errors import Forbidden


@pytest.mark.parametrize(
    ("glob", "seen", "unseen"),
    [
        ("chat-*", ["chat-", "chat-1", "chat-*"], ["chat", "xchat-1", "Chat-1"]),
        ("*", ["", "x"], []),
        ("a?c", ["abc", "a?c"], ["ac", "abbc"]),
        ("a_c%", ["a_c%"], ["abc%", "a_cd"]),
        ("[ab]", ["[ab]"], ["a", "b"]),
        ("", [""], ["x"]),
    ],
)
def test_a_star_matches_any_text_and_a_question_mark_one_character(
    glob: str, seen: list[str], unseen: list[str]
) -> None:
    assert all(matches_glob(session_id, glob) for session_id in seen)
    assert not any(matches_glob(session_id, glob) for session_id in unseen)


def test_without_a_pattern_all_sessions_are_visible() -> None:
    assert matches_glob("anything", None)


@given(st.text(alphabet="ab*?%_\\", max_size=8), st.text(alphabet="ab*?%_\\", max_size=8))
def test_like_matches_the_same_sessions(glob: str, session_id: str) -> None:
    pieces = re.findall(r"\\.|.", like_pattern(glob), re.DOTALL)
    like = "".join({"%": ".*", "_": "."}.get(piece, re.escape(piece[-1])) for piece in pieces)
    assert (re.fullmatch(like, session_id, re.DOTALL) is not None) == matches_glob(session_id, glob)


def test_consecutive_stars_take_no_time() -> None:
    assert not matches_glob("a" * 128, "*" * 200 + "b")


def test_the_refusal_names_the_pattern() -> None:
    with pytest.raises(Forbidden, match=r'"chat-\*"'):
        require_visible("walk", "chat-*")


def test_many_stars_take_little_time() -> None:
    """Otherwise a key with such a pattern could block the relay with one id."""
    assert not matches_glob("a" * 128, "*a" * 60 + "*b")
    assert matches_glob("a" * 127 + "b", "*a" * 60 + "*b")

"""The Markdown export: what one item contains never changes how the others are read."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from sessions.reads.markdown_rendering import write_markdown
from sessions.reads.prose import describe

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LINES = st.sampled_from(
    ["# x", "---", "===", "```", "~~~~ py", "- a", "Anna: hi", "", "    code", "1. y", "> z", "`a`"]
)
TEXTS = st.lists(LINES, min_size=1, max_size=8).map("\n".join)


def memory(content: Any, *, tags: Iterable[str] = (), **more: Any) -> SimpleNamespace:
    """A decision, unless another type is given."""
    known = {"type": "decision", "status": "done", "due": None, "tags": list(tags), **more}
    return SimpleNamespace(content=msgspec.Raw(msgspec.json.encode(content)), **known)


def chunk(content: str, form: str = "dialogue") -> SimpleNamespace:
    """A chunk of a conversation."""
    return SimpleNamespace(content=content, format=form, participants=[], start_at=None, created_at=NOW)


def export(*items: SimpleNamespace) -> str:
    """The document of a session with these memories and chunks."""
    session = SimpleNamespace(
        title="Walk",
        status="active",
        created_at=NOW,
        last_activity_at=NOW,
        participants=[],
        context="",
    )
    memories = [item for item in items if hasattr(item, "tags")]
    parts = write_markdown(
        session,
        memories=lambda kind: [item for item in memories if item.type == kind],
        tasks=[],
        artifacts=[],
        chunks=[item for item in items if item not in memories],
    )
    return "".join(parts)


def headings(document: str) -> list[str]:
    """The headings that a reader of Markdown sees."""
    tokens = MarkdownIt().parse(document)
    return [tokens[number + 1].content for number, token in enumerate(tokens) if token.type == "heading_open"]


def test_tags_are_on_the_line_of_the_statement() -> None:
    content = {"decision": "One barrel", "rationale": "It fits", "sizes": [300, 500], "by": {"who": "Ben"}}
    assert '- One barrel — It fits (#water)\n  - sizes: 300, 500\n  - by: {"who":"Ben"}\n' in export(
        memory(content, tags=["water"])
    )


@pytest.mark.parametrize(
    "content", [[{"a": 1}], {"a": {"b": 1}}, "Run:\n```sh\nmake up", "Run:\n```sh\nmake up\n```", {"what": "~~~\nx"}]
)
def test_what_follows_a_block_of_code_is_no_code(content: Any) -> None:
    document = export(memory(content, tags=["t"]), memory("next", type="note"))
    assert headings(document) == ["Walk", "Decisions", "Notes"]
    assert "(#t)" not in "".join(token.content for token in MarkdownIt().parse(document) if token.type == "fence")


def test_each_line_of_a_dialogue_is_a_line() -> None:
    document = export(chunk("Anna: hi\nBen: yes\n\n# shouted\nAnna: no\n---\nBen: bye"))
    assert MarkdownIt().render(document).count("<br />") == 4
    assert headings(document)[2:] == ["2026-11-22T12:00:00Z"]
    assert "\nAnna: hi  \nBen: yes\n\n\\# shouted  \n" in document


def test_a_summary_stays_as_it_is() -> None:
    text = "Agreed:\n- one\n- two\n\nSo far."
    assert f"\n\n{text}\n\n" in export(chunk(text, "summary"))


@given(
    st.lists(TEXTS, min_size=1, max_size=4), st.lists(st.text(st.characters(codec="ascii"), max_size=40), max_size=3)
)
def test_no_conversation_adds_headings(texts: list[str], others: list[str]) -> None:
    document = export(*map(chunk, texts), *map(chunk, others), memory("last", type="note"))
    wanted = ["Walk", "Notes", "Conversation", *["2026-11-22T12:00:00Z"] * (len(texts) + len(others))]
    assert headings(document) == wanted


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("as it is", "as it is"),
        ({"decision": "Solar", "rationale": "sun"}, "Solar — sun"),
        ({"priority": "high", "description": "Track carbon"}, "Track carbon\n- priority: high"),
        ({"who": "Ben", "done": True, "none": None}, "Ben\n- done: yes"),
        ({"why": "sun"}, "sun"),
        (["a", 1, 2.5], "a, 1, 2.5"),
        (7, "7"),
    ],
)
def test_contents_are_put_into_words(content: Any, text: str) -> None:
    described = describe(content)
    assert described is not None
    assert described.text == text


@pytest.mark.parametrize("content", [{}, [], [[1]], {"a": {}}, None])
def test_other_contents_are_left_to_json(content: Any) -> None:
    assert describe(content) is None

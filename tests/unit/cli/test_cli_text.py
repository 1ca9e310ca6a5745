"""session-cli's handling of foreign text, of times, and of command lines."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime, timedelta

import click
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.backends.pages import Items
from cli.command_declaration import DataCommand
from cli.commands.search import describe_limits
from cli.main import MODULES, cli
from cli.output.escaping import field, json_text, visible, visible_lines
from cli.output.humanize import ago, contents, count
from cli.output.machine_output import json_array, tsv
from cli.output.table_columns import SESSION, Column, OutputSchema
from sessions.reads.results import Page

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=200)
HARMFUL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


class TestText:
    @given(ANY_TEXT)
    def test_no_control_sequence_reaches_the_terminal(self, text: str) -> None:
        for shown in (visible(text), field(text), *visible_lines(text)):
            assert HARMFUL.search(shown) is None
        assert "\n" not in visible(text) + field(text)
        assert "\t" not in visible(text) + field(text)

    @given(ANY_TEXT)
    def test_a_field_of_tsv_can_be_read_back(self, text: str) -> None:
        named = {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}
        back = re.sub(
            r"\\(u([0-9a-f]{4})|.)", lambda found: chr(int(found[2], 16)) if found[2] else named[found[1]], field(text)
        )
        assert back == text

    @given(st.dictionaries(st.text(), st.text()))
    def test_escaped_json_has_the_same_value(self, value: dict[str, str]) -> None:
        written = json_text(msgspec.json.encode(value).decode())
        assert msgspec.json.decode(written) == value
        assert HARMFUL.search(written) is None

    def test_hostile_characters_are_made_visible(self) -> None:
        assert visible("a\x1b[31mb\x07\u202ec\x9d") == r"a\u001b[31mb\u0007\u202ec\u009d"
        assert visible("one\r\n\ttwo") == "one two"
        assert visible_lines("a\tb\r\nc\x1b") == ["a   b", r"c\u001b"]

    FOREIGN = ("שלום עולם", "日本語", "\U0001f469\u200d\U0001f467", "naïve — “quotes”", "[red]red[/red]")

    @pytest.mark.parametrize("text", FOREIGN)
    def test_foreign_scripts_stay_unchanged(self, text: str) -> None:
        assert (visible(text), field(text), json_text(text)) == (text, text, text)

    def test_every_control_character_of_unicode_is_covered(self) -> None:
        controls = [chr(n) for n in range(0x110000) if unicodedata.category(chr(n)) in ("Cc", "Cs", "Zl", "Zp")]
        assert [text for text in controls if text in field(text)] == []


class TestTables:
    SHAPE = OutputSchema((Column("id"), Column("a.b"), Column("list")), id_path="id")

    def test_tsv_has_a_heading_and_nested_fields_and_json_for_lists(self) -> None:
        pages: list[Items] = [
            [{"id": "x\ty", "a": {"b": 1.5}, "list": ["p", "q,r"]}],
            [{"id": "z", "a": None}],
        ]
        assert "".join(tsv(pages, self.SHAPE)) == 'id\ta.b\tlist\nx\\ty\t1.5\t["p","q,r"]\nz\t\t\n'

    def test_json_is_one_array_with_selectable_fields(self) -> None:
        pages: list[Items] = [
            [{"session_id": "s", "title": "T", "stats": {"tasks": 3}}],
            [],
            [{"session_id": "r"}],
        ]
        written = "".join(json_array(pages, SESSION, ("id", "title", "stats.tasks")))
        assert msgspec.json.decode(written) == [
            {"id": "s", "title": "T", "stats.tasks": 3},
            {"id": "r", "title": None, "stats.tasks": None},
        ]
        assert msgspec.json.decode("".join(json_array(pages, SESSION, ()))) == [*pages[0], *pages[2]]
        assert msgspec.json.decode("".join(json_array([], SESSION, ()))) == []


class TestWords:
    @pytest.mark.parametrize(
        ("seconds", "told"),
        [
            (0, "now"),
            (59, "59 seconds ago"),
            (60, "1 minute ago"),
            (3 * 60 + 20, "3 minutes ago"),
            (3_600, "1 hour ago"),
            (47 * 3_600, "1 day ago"),
            (8 * 86_400, "1 week ago"),
            (50 * 86_400, "7 weeks ago"),
            (61 * 86_400, "2026-09-22"),
            (-7_200, "in 2 hours"),
        ],
    )
    def test_times_are_relative_to_now(self, seconds: int, told: str) -> None:
        moment = NOW - timedelta(seconds=seconds)
        assert ago(moment.isoformat().replace("+00:00", "Z"), now=NOW) == told

    @pytest.mark.parametrize(
        "text", ["שלום עולם", "日本語", "\U0001f469\u200d\U0001f467", "naïve — “quotes”", "[red]red[/red]"]
    )
    def test_an_invalid_time_stays_unchanged(self, text: str) -> None:
        assert ago(text, now=NOW) == text

    def test_counts_use_singular_and_plural(self) -> None:
        assert [count(n, "memory", "memories") for n in (0, 1, 1_000)] == ["0 memories", "1 memory", "1,000 memories"]
        stats = {"conversation_chunks": 2, "memories": 1, "tasks": 0, "artifacts": 3, "active_tasks": 0}
        assert contents(stats) == "2 chunks, 1 memory and 3 artifacts"
        assert contents(dict.fromkeys(stats, 0)) == "no contents"


class TestCommandLines:
    @pytest.mark.parametrize("name", MODULES)
    def test_each_command_is_found_and_has_help(self, name: str) -> None:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert command.name == name
        first = (command.help or "").split(".")[0]
        assert 0 < len(first) < 55, "so that it fits into --help on 80 columns"

    @pytest.mark.parametrize("name", [name for name in MODULES if name != "up"])
    def test_each_command_has_a_json_option(self, name: str) -> None:
        command = cli.get_command(click.Context(cli), name)
        members = command.commands.values() if isinstance(command, click.Group) else [command]
        assert all(isinstance(member, DataCommand) for member in members)

    @pytest.mark.parametrize(
        ("line", "values"),
        [
            (["--json", "id,title", "word"], ("id,title", "word")),
            (["word", "--json", "id"], ("id", "word")),
            (["--json", "word"], ("", "word")),
            (["--json=id", "word"], ("id", "word")),
            (["word", "--json"], ("", "word")),
            (["word"], (None, "word")),
            (["--", "--json"], (None, "--json")),
        ],
    )
    def test_json_takes_the_next_word_only_if_it_names_fields(
        self, line: list[str], values: tuple[str | None, str]
    ) -> None:
        seen: list[tuple[str | None, str]] = []

        def run(json: str | None, word: str) -> None:
            seen.append((json, word))

        parameters: list[click.Parameter] = [click.Argument(["word"]), click.Option(["--json"])]
        DataCommand("x", shape=SESSION, params=parameters, callback=run).main(line, standalone_mode=False)
        assert seen == [values]


def test_a_search_says_what_it_cannot_find_yet() -> None:
    hit = {"area": "memories"}
    assert "not ready yet" in describe_limits(Page(items=[hit], notes={"method": "words", "meaning_ready": False}))
    assert describe_limits(Page(items=[], notes={"method": "hybrid", "not_embedded": 1})).startswith("1 new text can")
    assert describe_limits(Page(items=[hit], notes={"method": "hybrid", "not_embedded": 1})) == ""
    assert describe_limits(Page(items=[], notes={"method": "words"})) == ""

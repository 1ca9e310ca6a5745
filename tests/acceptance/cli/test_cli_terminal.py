"""session-cli in a terminal: colours, widths, the pager, and hostile titles with control characters."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from rich.cells import cell_len

from tests.support.processes.command_line import CommandLine
from tests.support.processes.stack import Stack, new_id, new_word

STYLE = re.compile(r"\x1b\[[0-9;]*m")
"""The only control sequences that are allowed."""
HARMFUL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
TITLES = {
    "escape sequences": "\u202egnp.exe\u202c ends",
    "markup": "[red]not red[/red] [link=http://x]no link[/link] [/]",
    "right to left": "שלום עולם مرحبا",
    "emoji": "\U0001f469\u200d\U0001f467 \U0001f600 tada",
    "wide": "太陽光発電の屋根について",
    "256 characters": "long " * 51 + "x",
}
CONTENT = (
    "\x1b]0;stolen title\x07\x1b[2J\x1b[31mred\x1b[0m \x9b31m \u202edlrow\u202c [red]tag[/red]\r\nnext\tline \x08\x08"
)


@pytest.fixture(scope="module")
def hostile(stack: Stack) -> dict[str, str]:
    """Sessions with hostile titles, and with hostile content in the first."""
    ids = {}
    for kind, title in TITLES.items():
        ids[kind] = new_id("hostile")
        stack.send("create_session", ids[kind], title=title)
    first = ids["escape sequences"]
    stack.send("conversation_chunk", first, content=f"marker {CONTENT}")
    stack.send("store_memory", first, key="k", content=CONTENT)
    stack.send("add_artifact", first, artifact_id="a", name="[red]name", content=CONTENT)
    stack.send("delegate_task", first, task_id="t", description=CONTENT)
    return ids


def readable(shown: str) -> str:
    """Return the visible text. Fails if anything but styles acts on the terminal."""
    text = STYLE.sub("", shown)
    found = HARMFUL.search(text)
    assert found is None, f"{found!r} in {text!r}"
    return text


def joined(text: str) -> str:
    """Return the text without line breaks."""
    return re.sub(r"\s+", "", text)


@pytest.mark.parametrize("kind", TITLES)
@pytest.mark.parametrize("columns", [40, 80, 200])
class TestTitles:
    def test_a_hostile_title_is_shown_harmlessly(
        self, cli: CommandLine, hostile: dict[str, str], kind: str, columns: int
    ) -> None:
        text = readable(cli.shown("show", hostile[kind], columns=columns))
        expected = TITLES[kind].replace("\u202e", r"\u202e").replace("\u202c", r"\u202c")
        assert joined(expected) in joined(text)
        assert max(map(cell_len, text.splitlines())) <= columns

    def test_a_hostile_title_fits_into_lists(
        self, cli: CommandLine, hostile: dict[str, str], kind: str, columns: int
    ) -> None:
        drawn, _, _ = readable(cli.shown("list", "-n", "20", columns=columns)).partition("Showing the first 20")
        assert hostile[kind] in drawn
        assert max(map(cell_len, drawn.splitlines())) <= columns


@pytest.mark.parametrize(
    "command",
    [
        *("transcript {id}", "memories {id}", "summary {id}", "list-tasks --session {id}", "deliveries --session {id}"),
        *("list-artifacts --session {id}", "search-conversations marker --session {id}", "artifact {id} a"),
        *("export {id} --format markdown", "export {id}", "memories {id} --json", "show {id} --json", "watch {id}"),
    ],
)
def test_hostile_content_never_reaches_the_terminal(cli: CommandLine, hostile: dict[str, str], command: str) -> None:
    words = command.format(id=hostile["escape sequences"]).split()
    if words[0] == "watch":
        terminal = cli.terminal(*words)
        terminal.wait_for("Ctrl-C")
        terminal.interrupt()
        text = readable(terminal.end()[1].replace("^C", ""))
        assert "delegate_task" in text
        return
    for columns in (40, 100):
        readable(cli.shown(*words, columns=columns))


def test_piped_output_is_harmless(cli: CommandLine, hostile: dict[str, str]) -> None:
    session_id = hostile["escape sequences"]
    for words in (
        ["list"],
        ["transcript", session_id],
        ["memories", session_id, "--json"],
        ["show", session_id, "--json"],
    ):
        assert HARMFUL.search(cli.run(*words).out) is None
    assert cli.run("memories", session_id, "--json").json[0]["content"] == CONTENT


def test_errors_are_harmless(cli: CommandLine) -> None:
    done = cli.run("show", "\x1b[31mred\u202e", code=2)
    assert HARMFUL.search(done.err) is None


class TestColours:
    def test_output_in_a_terminal_has_colours(self, cli: CommandLine, hostile: dict[str, str]) -> None:
        assert STYLE.search(cli.shown("list"))

    @pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
    def test_colours_can_be_turned_off(
        self, cli: CommandLine, hostile: dict[str, str], environment: dict[str, str]
    ) -> None:
        for words in (["list"], ["show", hostile["markup"]], ["search-conversations", "marker"]):
            text = cli.shown(*words, columns=90, environment=environment)
            assert "\x1b" not in text
            assert max(map(cell_len, text.splitlines())) <= 90
        terminal = cli.terminal("show", "not-there", environment=environment)
        assert "\x1b" not in terminal.end()[1]

    def test_output_in_a_pipe_has_no_colours(self, cli: CommandLine) -> None:
        assert "\x1b" not in cli.run("list").out


class TestPager:
    @pytest.fixture
    def long(self, stack: Stack) -> Iterator[str]:
        """A session with more content than fits on a screen."""
        session_id = new_id("long")
        stack.send("create_session", session_id, title="Long")
        stack.send("conversation_chunk", session_id, content="\n".join(f"line {n} \x1b[31m" for n in range(500)))
        yield session_id
        stack.send("delete_session", session_id, confirm=session_id)

    def test_long_output_goes_through_the_pager(self, cli: CommandLine, long: str) -> None:
        pager = cli.folder / "pager"
        pager.write_text('#!/bin/sh\ncat > paged.txt\necho "paged with $LESS" >&2\n')
        pager.chmod(0o755)
        shown = cli.shown("transcript", long, lines=24, environment={"PAGER": str(pager)})
        assert "paged with FRX" in shown
        paged = readable((cli.folder / "paged.txt").read_text())
        assert r"line 499 \u001b[31m" in paged

    def test_short_output_does_not_go_through_the_pager(self, cli: CommandLine, long: str) -> None:
        assert "Long" in cli.shown("show", long, lines=40, environment={"PAGER": "/does/not/exist"})

    def test_a_pager_that_is_closed_early_ends_it_quietly(self, cli: CommandLine, long: str) -> None:
        assert cli.shown("transcript", long, lines=24, environment={"PAGER": "head -2"}).count("\n") == 2

    @pytest.mark.parametrize("way", ["--no-pager", "no such pager", "dumb"])
    def test_the_pager_can_be_turned_off(self, cli: CommandLine, long: str, way: str) -> None:
        environment = {"PAGER": "false", **({"TERM": "dumb"} if way == "dumb" else {})}
        if way == "no such pager":
            environment["PAGER"] = "/does/not/exist"
        options = ["--no-pager"] if way == "--no-pager" else []
        assert r"line 499 \u001b[31m" in cli.shown("transcript", long, *options, lines=24, environment=environment)


def test_times_are_shown_relative_to_now(cli: CommandLine, stack: Stack) -> None:
    session_id = new_id("timed")
    stack.send("create_session", session_id, title="Timed")
    assert re.search(r"Active +(now|\d+ seconds ago)", readable(cli.shown("show", session_id)))


def test_search_hits_are_highlighted_without_markers(cli: CommandLine, stack: Stack) -> None:
    session_id, word = new_id("found"), new_word("needle")
    stack.send("create_session", session_id, title="Haystack")
    stack.send("conversation_chunk", session_id, content=f"hay {word} hay")
    shown = cli.shown("search-conversations", word)
    assert f"\x1b[1;33m{word}\x1b[0m" in shown
    assert "**" not in shown


def test_an_empty_search_says_so(cli: CommandLine) -> None:
    assert cli.shown("search-conversations", "zyxwvutsrqpo") == "No results.\n"


def test_progress_bars_do_not_mix_with_output(cli: CommandLine, stack: Stack) -> None:
    session_id = new_id("moved")
    stack.send("create_session", session_id, title="Moved")
    assert "Exporting" not in cli.shown("export", "--all", lines=60_000)
    assert "Exporting" in cli.shown("export", "--all", "-o", "all.jsonl")
    cli.run("export", session_id, "-o", "one.json")
    shown = STYLE.sub("", cli.shown("import", "one.json"))
    assert "Importing" in shown
    assert shown.rindex("Importing") < shown.index(session_id)

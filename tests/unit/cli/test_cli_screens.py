"""session-cli as people see it in a terminal, in this process, with the JSON store and without servers."""

from __future__ import annotations

import json
import re
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli.doctor.relay_health import parts
from cli.doctor.status_view import draw_status
from tests.support.processes.cli_backends import on_store
from tests.support.processes.command_line import CommandLine

STYLE = re.compile(r"\x1b\[[0-9;]*m")
CYAN = "\x1b[36m"
PAGER = {"PAGER": "less"}
"""Not started for what fits on the screen, but the output is held back until it is known."""
LONG = "a-session-with-a-rather-long-id"


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """session-cli on an empty JSON store."""
    return on_store(tmp_path, backend="json")


def send(cli: CommandLine, command: str, session_id: str, **data: Any) -> None:
    """Apply a command."""
    body = {"command": command, "session_id": session_id, "data": data}
    cli.run("send", "-", "--json", "status", input=json.dumps(body))


@pytest.fixture
def garden(cli: CommandLine) -> CommandLine:
    """A session with a decision and a task."""
    send(cli, "create_session", LONG, title="Garden")
    content = {"decision": "One barrel of 500 litres", "rationale": "It fits under the window", "sizes": [300, 500]}
    send(cli, "store_memory", LONG, key="barrel", type="decision", content=content, tags=["water", "two words"])
    send(cli, "delegate_task", LONG, task_id="prices", description="Compare the prices of barrels", agent_name="scout")
    return cli


def plain(text: str) -> str:
    """Return the text without styles."""
    return STYLE.sub("", text)


@pytest.mark.parametrize("group", ["keys", "agent", "dead-letters", "db", ""])
def test_a_group_without_a_command_shows_its_help(cli: CommandLine, group: str) -> None:
    shown = cli.drawn(*group.split(), code=2)
    assert shown == cli.drawn(*group.split(), "--help")
    assert shown.startswith("Usage: session-cli ")


def test_only_the_names_of_a_summary_are_cyan(garden: CommandLine) -> None:
    shown = garden.drawn("summary", LONG)
    assert f"{CYAN}barrel\x1b[0m" in shown
    [text] = [line for line in shown.splitlines() if "Compare the prices" in line]
    assert CYAN not in text


def test_a_decision_is_shown_with_its_rationale_and_not_as_json(garden: CommandLine) -> None:
    for command in ("summary", "memories"):
        shown = plain(garden.drawn(command, LONG))
        assert "  One barrel of 500 litres — It fits under the window\n  - sizes: 300, 500\n" in shown
        assert "{" not in shown
    assert garden.run("memories", LONG, "--json", "content").json[0]["content"]["sizes"] == [300, 500]


class TestMore:
    @pytest.fixture
    def several(self, cli: CommandLine) -> CommandLine:
        """Three sessions."""
        for name in ("one", "two", "three"):
            cli.run("create", name)
        return cli

    def test_that_there_are_more_is_said_below_the_table(self, several: CommandLine) -> None:
        lines = plain(several.drawn("list", "-n", "2", environment=PAGER)).splitlines()
        assert [line.split()[0] for line in lines[:-1]] == ["ID", "three", "two"]
        assert lines[-1] == "Showing the first 2. Use --limit 0 to show all."

    def test_it_is_not_within_the_json(self, several: CommandLine) -> None:
        written, _, more = several.drawn("list", "-n", "2", "--json", "id").partition("\n]\n")
        assert json.loads(f"{written}]") == [{"id": "three"}, {"id": "two"}]
        assert more == "Showing the first 2. Use --limit 0 to show all.\n"

    def test_the_count_of_an_export_comes_after_it(self, several: CommandLine) -> None:
        assert several.drawn("export", "--all", environment=PAGER).endswith("}\nExported 3 sessions.\n")
        assert several.run("export", "--all", "-o", "all").err == "Exported 3 sessions.\nExported to all.\n"


class TestTasks:
    @pytest.mark.parametrize("columns", [40, 60, 80, 120])
    def test_a_task_is_listed_with_its_session(self, garden: CommandLine, columns: int) -> None:
        shown = plain(garden.drawn("list-tasks", columns=columns))
        assert LONG in shown
        assert "prices" in shown
        assert max(map(len, shown.splitlines())) <= columns

    def test_within_one_session_it_is_left_out(self, garden: CommandLine) -> None:
        assert LONG not in garden.drawn("list-tasks", "--session", LONG)
        assert garden.run("list-tasks", "--session", LONG).rows[0]["session_id"] == LONG


class TestSending:
    def test_the_results_of_a_batch_are_a_table(self, cli: CommandLine) -> None:
        ideas = [{"command": "store_memory", "data": {"key": f"idea-{n}", "content": "x" * 90}} for n in range(3)]
        body = {"command": "batch", "session_id": "s"}
        body |= {"data": {"commands": [{"command": "create_session", "data": {"title": "S"}}, *ideas]}}  # type: ignore[dict-item]
        (cli.folder / "batch.json").write_text(json.dumps(body))
        shown = plain(cli.drawn("send", "batch.json"))
        assert re.search(r"^ +4 +store_memory +success +Stored the memory \"idea-2\"\.$", shown, re.MULTILINE)
        assert "{" not in shown
        assert len(cli.run("send", "batch.json", "--json").json["data"]["results"]) == 4

    def test_json_is_not_broken_within_words(self, garden: CommandLine) -> None:
        body = {"command": "retrieve_memory", "session_id": LONG, "data": {"key": "barrel"}}
        (garden.folder / "read.json").write_text(json.dumps(body))
        shown = plain(garden.drawn("send", "read.json", columns=40))
        block = shown[shown.index("{") :]
        assert json.loads(block)["memory"]["content"]["rationale"] == "It fits under the window"


def test_of_the_shards_only_those_with_a_backlog_are_shown() -> None:
    shards: list[dict[str, Any]] = [{"shard": n, "waiting": 0, "oldest_seconds": None} for n in range(16)]
    inbox: dict[str, Any] = {"waiting": 0, "oldest_seconds": None, "limit": 1_000, "shards": shards}
    known = dict.fromkeys(("hidden", "workers", "agents", "redis"))
    status: dict[str, Any] = {"url": "u", "version": "1", **known, "postgres": {"state": "ok"}, "inbox": inbox}

    def drawn() -> str:
        screen = Console(file=StringIO(), width=80)
        for picture in draw_status(status):
            screen.print(picture)
        return screen.file.getvalue()  # type: ignore[attr-defined, no-any-return]

    assert "shard" not in drawn() + str([part["part"] for part in parts(status)])
    shards[7] |= {"waiting": 3, "oldest_seconds": 1.0}
    assert "shard 07" in drawn()
    assert [part["part"] for part in parts(status) if "shard" in part["part"]] == ["shard 07"]

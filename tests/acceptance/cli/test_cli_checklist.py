"""Each item of the checklist for session-cli, with a relay, with Postgres and with files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from local.servers.embedded import EmbeddedServer
from tests.support.processes.cli_backends import BACKENDS, cli_on, on_relay, on_store
from tests.support.processes.command_line import CommandLine, json_lines
from tests.support.processes.stack import Stack, new_id, new_word
from tests.support.servers import new_database

STYLE = re.compile(r"\x1b\[[0-9;]*m")


class Filled(NamedTuple):
    """A session with one item of each kind, and the words that occur only in them."""

    session_id: str
    spoken: str
    remembered: str


@pytest.fixture(scope="module", params=BACKENDS)
def cli(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """session-cli on each backend in turn."""
    with cli_on(request, tmp_path_factory.mktemp("checklist")) as command_line:
        yield command_line


@pytest.fixture(scope="module", params=BACKENDS)
def empty(
    request: pytest.FixtureRequest,
    postgres: EmbeddedServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[CommandLine]:
    """session-cli on an empty store."""
    folder = tmp_path_factory.mktemp("empty")
    with ExitStack() as held:
        if request.param == "json":
            yield on_store(folder, backend="json")
            return
        url = held.enter_context(new_database(postgres))
        if request.param == "postgres":
            yield on_store(folder, backend="postgres", database_url=url)
            return
        # No command is sent, so nothing needs a worker.
        stack = Stack(database_url=url, redis_url=request.getfixturevalue("redis_url"), folder=folder / "stack")
        held.callback(stack.close)
        stack.start("api")
        yield on_relay(folder, stack)


@pytest.fixture(scope="module")
def filled(cli: CommandLine) -> Filled:
    """The session that is searched, listed and exported."""
    filled = Filled(new_id("filled"), new_word("photovoltaic"), new_word("inverter"))
    conversation = [
        ("c1", f"Anna: shall we put {filled.spoken} panels on the black roof?\nBen: Yes, before winter."),
        ("c2", f"Anna: the {filled.spoken} quote came. Ben: the neighbour has a heat pump."),
        ("c3", "安装太阳能电池板 and a Wärmepumpe"),
    ]
    items: list[tuple[str, dict[str, Any]]] = [
        ("create_session", {"title": "Solar roof", "participants": ["Anna", "Ben"]}),
        *(("conversation_chunk", {"chunk_id": name, "content": text}) for name, text in conversation),
        (
            "store_memory",
            {"key": "maker", "type": "decision", "content": f"{filled.remembered} of ACME", "tags": ["roof", "a,b"]},
        ),
        (
            "store_memory",
            {"key": "who", "type": "question", "content": f"Who mounts the {filled.remembered}?", "tags": ["people"]},
        ),
        ("delegate_task", {"task_id": "prices", "description": "Compare prices", "agent_name": "researcher"}),
        ("delegate_task", {"task_id": "order", "description": "Order", "agent_name": "buyer"}),
        ("cancel_task", {"task_id": "order"}),
        ("add_artifact", {"artifact_id": "report", "name": "Report", "content": "# Report\n\nBlack panels.\n"}),
        (
            "add_artifact",
            {"artifact_id": "figures", "name": "Figures", "type": "data", "content": {"b": 1, "a": [1e23, -0.0]}},
        ),
    ]
    commands = [{"command": command, "data": data} for command, data in items]
    send(cli, "batch", filled.session_id, {"commands": commands})
    return filled


def send(cli: CommandLine, command: str, session_id: str, data: dict[str, Any]) -> None:
    """Send a command and wait until it is applied."""
    body = {"command": command, "session_id": session_id, "data": data}
    assert cli.run("send", "-", "--wait", "30", "--json", "status", input=json.dumps(body)).json == {
        "status": "success"
    }


class TestCreateWithMinimalArguments:
    def test_an_id_suffices(self, cli: CommandLine) -> None:
        session_id = new_id("minimal")
        done = cli.run("create", session_id)
        assert done.err == f'Started "{session_id}".\n'
        [made] = done.rows
        assert (made["session_id"], made["title"], made["status"]) == (session_id, session_id, "active")
        assert (made["participants"], made["context"], made["stats.memories"]) == ("[]", "", "0")
        assert cli.run("show", session_id).rows == [made]

    def test_a_missing_id_is_a_usage_error(self, cli: CommandLine) -> None:
        assert "Missing argument 'ID'" in cli.run("create", code=2).err
        assert "Invalid id 'two words'" in cli.run("create", "two words", code=2).err


class TestCreateWithAllArguments:
    WORDS = ("--title", "Solar roof", "--participants", "Anna, Ben", "-p", "Zoë", "--context", "Which\npanels?")

    def test_all_given_fields_are_stored(self, cli: CommandLine) -> None:
        session_id = new_id("whole")
        assert cli.run("create", session_id, *self.WORDS).err == 'Started "Solar roof".\n'
        shown = cli.run("show", session_id, "--json").json
        assert (shown["title"], shown["context"]) == ("Solar roof", "Which\npanels?")
        assert shown["participants"] == ["Anna", "Ben", "Zoë"]

    def test_a_repeat_changes_nothing_and_a_conflict_is_refused(self, cli: CommandLine) -> None:
        session_id = new_id("whole")
        made, again = (cli.run("create", session_id, *self.WORDS, "--json").json for _ in range(2))
        assert (made["created"], again["created"]) == (True, False)
        refused = json.loads(cli.run("create", session_id, "--title", "Another", "--json", code=1).err)["error"]
        assert refused["code"] == "session_exists"
        assert cli.run("show", session_id, "--json", "title").json == {"title": "Solar roof"}


class TestListWithFilters:
    def test_sessions_are_filtered_by_status_the_latest_active_first(self, cli: CommandLine) -> None:
        ids = [new_id("listed") for _ in range(4)]
        for session_id in ids:
            cli.run("create", session_id)
        cli.run("pause", ids[0])
        cli.run("complete", ids[1])
        cli.run("pause", ids[2])
        cli.run("resume", ids[2])
        wanted = {"active": [ids[2], ids[3]], "paused": [ids[0]], "completed": [ids[1]]}
        for status, expected in wanted.items():
            found = cli.run("list", "--status", status, "--limit", "0", "--json", "id,status").json
            assert [item["id"] for item in found if item["id"] in ids] == expected
            assert {item["status"] for item in found} == {status}
        everything = [row["session_id"] for row in cli.run("list", "--limit", "0").rows]
        assert [session_id for session_id in everything if session_id in ids] == [ids[2], ids[1], ids[0], ids[3]]

    def test_a_limited_list_says_that_there_is_more(self, cli: CommandLine, filled: Filled) -> None:
        cli.run("create", new_id("another"))
        done = cli.run("list", "--limit", "1")
        assert len(done.rows) == 1
        assert done.err == "Showing the first 1. Use --limit 0 to show all.\n"
        assert cli.run("list", "--limit", "0").err == ""

    @pytest.mark.parametrize("wrong", [("--status", "sleeping"), ("--limit", "-1"), ("--limit", "many")])
    def test_an_unknown_filter_is_a_usage_error(self, cli: CommandLine, wrong: tuple[str, str]) -> None:
        done = cli.run("list", *wrong, code=2)
        assert done.out == ""
        assert wrong[1] in done.err

    def test_tasks_are_filtered_by_status_and_agent_and_artifacts_by_type(
        self, cli: CommandLine, filled: Filled
    ) -> None:
        here = ("--session", filled.session_id, "--json", "id")
        assert cli.run("list-tasks", *here).json == [{"id": "prices"}, {"id": "order"}]
        assert cli.run("list-tasks", "--status", "cancelled", *here).json == [{"id": "order"}]
        assert cli.run("list-tasks", "--agent", "researcher", "--status", "pending", *here).json == [{"id": "prices"}]
        assert cli.run("list-tasks", "--agent", "researcher", "--status", "failed", *here).json == []
        assert cli.run("list-artifacts", "--type", "data", *here).json == [{"id": "figures"}]
        assert {item["id"] for item in cli.run("list-artifacts", *here).json} == {"report", "figures"}


class TestShowMissingRecords:
    @pytest.mark.parametrize(
        "line",
        [
            *("show {}", "summary {}", "pause {}", "delete {} --yes", "transcript {}", "memories {}"),
            *("export {}", "export {} --format markdown", "artifact {} report", "watch {}"),
        ],
    )
    def test_a_missing_session_is_named_with_its_exit_code(self, cli: CommandLine, line: str) -> None:
        missing = new_id("missing")
        done = cli.run(*line.format(missing).split(), code=3)
        assert done.out == ""
        assert done.err.startswith(f"Error: Session '{missing}' not found.\n")

    def test_the_nearest_id_is_suggested(self, cli: CommandLine, filled: Filled) -> None:
        done = cli.run("show", filled.session_id[:-1], code=3)
        assert repr(filled.session_id) in done.err

    def test_programs_get_the_error_as_json(self, cli: CommandLine) -> None:
        done = cli.run("show", "missing", "--json", code=3)
        error = json.loads(done.err)["error"]
        assert (done.out, error["code"], error["field"]) == ("", "session_not_found", "session_id")
        assert error["retryable"] is False

    def test_a_missing_artifact_is_named(self, cli: CommandLine, filled: Filled) -> None:
        assert "'nothing'" in cli.run("artifact", filled.session_id, "nothing", code=3).err


class TestDeleteWithConfirmation:
    @pytest.fixture
    def doomed(self, cli: CommandLine) -> str:
        """A session to delete."""
        session_id = new_id("doomed")
        cli.run("create", session_id, "--title", "Doomed [red]")
        send(cli, "store_memory", session_id, {"key": "k", "content": session_id.replace("-", "")})
        send(cli, "delegate_task", session_id, {"task_id": "t", "description": "x", "agent_name": "researcher"})
        return session_id

    @pytest.mark.parametrize(("answer", "code"), [("n", 1), ("", 1), ("y", 0)])
    def test_a_person_sees_the_contents_and_is_asked(
        self, cli: CommandLine, doomed: str, answer: str, code: int
    ) -> None:
        terminal = cli.terminal("delete", doomed, columns=200)
        shown = terminal.wait_for("[y/N]")
        assert f'Permanently delete "Doomed [red]" ({doomed}) with 1 memory and 1 task?' in shown
        terminal.type(f"{answer}\n")
        ended, text = terminal.end()
        assert ended == code
        assert ("Nothing was changed." if code else 'Deleted "Doomed [red]"') in text
        cli.run("show", doomed, code=0 if code else 3)

    def test_a_program_must_pass_yes(self, cli: CommandLine, doomed: str) -> None:
        done = cli.run("delete", doomed, input="y\n", code=2)
        assert "pass --yes" in done.err
        assert cli.run("show", doomed).rows
        assert cli.run("delete", doomed, "--yes").err == 'Deleted "Doomed [red]" and its contents.\n'

    def test_a_deleted_session_leaves_nothing(self, cli: CommandLine, doomed: str) -> None:
        word = doomed.replace("-", "")
        assert cli.run("search-memories", word).rows[0]["session_id"] == doomed
        cli.run("delete", doomed, "-y")
        assert doomed not in cli.run("search-memories", word).out
        cli.run("list-tasks", "--session", doomed, code=3)
        assert doomed not in cli.run("list", "--limit", "0").out + cli.run("list-tasks", "--limit", "0").out
        cli.run("delete", doomed, "--yes", code=3)
        [anew] = cli.run("create", doomed).rows
        assert (anew["stats.memories"], anew["stats.tasks"]) == ("0", "0")


class TestSearchWithComplexQueries:
    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("{}", {"c1", "c2"}),
            ("{} panels roof", {"c1"}),
            ('"black roof" {}', {"c1"}),
            ('"roof black {}"', set()),
            ("{} -neighbour", {"c1"}),
            ("{} -panels -neighbour", set()),
            ('nowhere-at-all OR "heat pump" {}', {"c2"}),
            ("{} PANEL", {"c1"}),
        ],
    )
    def test_phrases_exclusions_and_alternatives_are_understood(
        self, cli: CommandLine, filled: Filled, query: str, expected: set[str]
    ) -> None:
        words = query.format(filled.spoken)
        hits = cli.run("search-conversations", words, "--session", filled.session_id, "--json").json
        assert {hit["chunk_id"] for hit in hits if hit["match"] == "all"} == expected
        assert all("**" in hit["snippet"] for hit in hits)

    def test_words_of_any_script_are_found(self, cli: CommandLine, filled: Filled) -> None:
        for words in ("太阳能", "wärmepumpe"):
            rows = cli.run("search-conversations", words, "--session", filled.session_id).rows
            assert [row["chunk_id"] for row in rows] == ["c3"]

    def test_partial_matches_come_last(self, cli: CommandLine, filled: Filled) -> None:
        rows = cli.run("search-conversations", f"{filled.spoken} neighbour").rows
        assert [(row["chunk_id"], row["match"]) for row in rows] == [("c2", "all"), ("c1", "partial")]
        assert {row["session_title"] for row in rows} == {"Solar roof"}

    def test_results_are_limited_by_time_session_and_number(self, cli: CommandLine, filled: Filled) -> None:
        def found(*narrowed: str) -> int:
            return len(cli.run("search-conversations", filled.spoken, *narrowed).rows)

        assert (found("--since", "1h"), found("--since", "2020-01-01", "--until", "2999-01-01")) == (2, 2)
        assert (found("--until", "2020-01-01"), found("--limit", "1")) == (0, 1)
        refused = cli.run("search-conversations", "x", "--since", "yesteryear", code=1)
        assert refused.err.startswith("Error: Invalid time 'yesteryear'.\n")

    def test_memories_are_filtered_by_type_and_tags(self, cli: CommandLine, filled: Filled) -> None:
        def keys(*narrowed: str) -> set[str]:
            return {row["key"] for row in cli.run("search-memories", filled.remembered, *narrowed).rows}

        assert keys() == {"maker", "who"}
        assert (keys("--type", "decision"), keys("--type", "idea")) == ({"maker"}, set())
        assert (keys("--tags", "other,people"), keys("--tags", "garden")) == ({"who"}, set())
        assert keys("--type", "question", "--tags", "roof") == set()
        assert keys("--session", filled.session_id, "--since", "1d", "--type", "question") == {"who"}

    @pytest.mark.parametrize("query", ["'; DROP TABLE sessions; -- % ((((", '\\ * " a & b | c <-> !'])
    def test_special_characters_are_harmless(self, cli: CommandLine, query: str) -> None:
        assert cli.run("search-conversations", "--json", "--", query).json is not None

    def test_an_invalid_query_is_an_error(self, cli: CommandLine) -> None:
        assert "1000" in cli.run("search-conversations", "x" * 1_001, code=1).err
        assert cli.run("search-memories", "", code=1).err.startswith("Error: ")


class TestExportInBothFormats:
    def test_json_contains_everything_as_it_was_sent(self, cli: CommandLine, filled: Filled) -> None:
        document = cli.run("export", filled.session_id).json
        assert document["session"]["title"] == "Solar roof"
        assert [chunk["chunk_id"] for chunk in document["chunks"]] == ["c1", "c2", "c3"]
        assert {memory["key"] for memory in document["memories"]} == {"maker", "who"}
        assert {task["task_id"]: task["status"] for task in document["tasks"]} == {
            "prices": "pending",
            "order": "cancelled",
        }
        [figures] = [item["content"] for item in document["artifacts"] if item["artifact_id"] == "figures"]
        assert json.dumps(figures) == '{"b": 1, "a": [1e+23, -0.0]}'

    def test_markdown_is_a_readable_document(self, cli: CommandLine, filled: Filled) -> None:
        text = cli.run("export", filled.session_id, "--format", "markdown").out
        assert text.startswith("# Solar roof\n")
        for content in ("Anna, Ben", "Compare prices", f"{filled.remembered} of ACME", "Black panels.", "heat pump"):
            assert content in text

    def test_a_file_is_written_completely_or_not_at_all(self, cli: CommandLine, filled: Filled) -> None:
        for form, name in (("json", "session.json"), ("markdown", "session.md")):
            done = cli.run("export", filled.session_id, "--format", form, "-o", name)
            assert (done.out, done.err) == ("", f"Exported to {name}.\n")
            assert (cli.folder / name).read_text() == cli.run("export", filled.session_id, "--format", form).out
        before = (cli.folder / "session.md").read_text()
        cli.run("export", "not-there", "-o", "session.md", code=3)
        assert (cli.folder / "session.md").read_text() == before

    def test_an_import_exports_the_same_bytes(self, cli: CommandLine) -> None:
        session_id = new_id("moved")
        cli.run("create", session_id, "--title", "Moved")
        send(cli, "store_memory", session_id, {"key": "k", "content": {"b": 1, "a": [1e23, -0.0]}})
        document = cli.run("export", session_id).out
        assert cli.run("import", "-", "--json", input=document).json == [{"session_id": session_id, "created": False}]
        cli.run("delete", session_id, "--yes")
        assert cli.run("import", "-", "--json", input=document).json == [{"session_id": session_id, "created": True}]
        assert cli.run("export", session_id).out == document

    def test_an_export_of_all_has_one_document_a_line(self, cli: CommandLine, filled: Filled) -> None:
        documents = {item["session"]["session_id"]: item for item in json_lines(cli.run("export", "--all").out)}
        assert documents[filled.session_id] == cli.run("export", filled.session_id).json
        assert len(documents) == len(cli.run("list", "--limit", "0").rows)


class TestWithAnEmptyDatabase:
    @pytest.mark.parametrize(
        "line",
        [
            *("list --status paused", "search-conversations roof", "search-memories roof --type idea"),
            *("list-tasks --agent nobody --status failed", "list-artifacts --type code"),
        ],
    )
    def test_empty_lists_have_a_heading_and_no_rows(self, empty: CommandLine, line: str) -> None:
        done = empty.run(*line.split())
        assert (done.rows, done.err) == ([], "")
        assert "session_id" in done.out

    def test_programs_get_an_empty_list(self, empty: CommandLine) -> None:
        assert empty.run("list", "--json").json == []
        assert empty.run("list", "--json", "id,title").out == "[\n]\n"

    def test_people_see_a_message_for_an_empty_list(self, empty: CommandLine) -> None:
        shown = STYLE.sub("", empty.shown("list"))
        assert shown == "No sessions yet. Create one: session-cli create ID --title TITLE\n"
        assert empty.shown("search-conversations", "roof") == "No results.\n"
        assert empty.shown("list-tasks") == "No tasks found.\n"

    def test_a_named_session_is_not_found(self, empty: CommandLine) -> None:
        done = empty.run("show", "x", code=3)
        assert (done.out, done.err.splitlines()[0]) == ("", "Error: Session 'x' not found.")

    def test_an_export_of_an_empty_store_is_empty(self, empty: CommandLine) -> None:
        done = empty.run("export", "--all")
        assert (done.out, done.err) == ("", "Exported 0 sessions.\n")
        assert empty.run("import", "-", "--json").json == []


class TestWatching:
    def test_a_new_event_is_shown(self, cli: CommandLine) -> None:
        session_id = new_id("watched")
        cli.run("create", session_id)
        terminal = cli.terminal("watch", session_id, "--json", "event")
        terminal.wait_for("Ctrl-C")
        cli.run("pause", session_id)
        terminal.wait_for("pause_session")
        terminal.interrupt()
        code, text = terminal.end()
        assert code == 130
        events = [json.loads(line)["event"] for line in text.splitlines() if line.startswith("{")]
        assert events == ["create_session", "pause_session"]


@pytest.mark.parametrize("backend", ["postgres", "json"])
def test_commands_that_need_a_relay_are_usage_errors_on_a_store(tmp_path: Path, backend: str) -> None:
    cli = on_store(tmp_path, backend=backend, database_url="postgresql://127.0.0.1:9/none")
    sentence = f"This command needs a relay; it does not support --backend {backend}."
    for line in (
        *("deliveries", "deliveries x", "agents", "refusals", "status"),
        *("dead-letters list", "dead-letters show x", "dead-letters replay x", "dead-letters replay --all"),
        *("dead-letters discard x --yes", "keys list", "keys create x -s read", "keys revoke x --yes"),
    ):
        done = cli.run(*line.split(), code=2)
        assert (done.out, done.err.splitlines()[0]) == ("", f"Error: {sentence}"), line
    assert json.loads(cli.run("deliveries", "--json", code=2).err)["error"]["message"] == sentence

"""session-cli over HTTP: the commands, their output for programs, and their exit codes."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from tests.support.clients.keys import make_key
from tests.support.processes.command_line import CommandLine, json_lines
from tests.support.processes.stack import Payload, Stack, new_id, wait_for
from tests.support.project import ROOT

WORD = "photovoltaicwagon"


@pytest.fixture(scope="module")
def full(stack: Stack) -> str:
    """A session with something of each kind."""
    session_id = new_id("full")
    stack.send("create_session", session_id, title="Solar roof", participants=["Anna", "Ben"], context="Which panels?")
    stack.send("conversation_chunk", session_id, chunk_id="c1", content=f"Anna: shall we do {WORD}?\nBen:\tYes.")
    stack.send("conversation_chunk", session_id, chunk_id="c2", content="x" * 200_000)
    stack.send("store_memory", session_id, key="panels", type="decision", content=f"Black {WORD}", tags=["roof", "a,b"])
    stack.send("store_memory", session_id, key="numbers", type="fact", content={"values": list(range(30_000))})
    stack.send("store_memory", session_id, key="who", type="question", content="Who mounts them?")
    stack.send("delegate_task", session_id, task_id="t1", description="Compare prices", agent_name="researcher")
    stack.send("delegate_task", session_id, task_id="t2", description="Order", agent_name="buyer")
    stack.send("cancel_task", session_id, task_id="t2")
    stack.send("add_artifact", session_id, artifact_id="report", name="Report", content="# Report\n\x1b[31m\n")
    stack.send("add_artifact", session_id, artifact_id="data", name="Data", type="data", content={"a": [1, 2.5]})
    make_key(stack)
    return session_id


class TestSessions:
    def test_create_needs_only_an_id(self, cli: CommandLine) -> None:
        session_id = new_id("minimal")
        done = cli.run("create", session_id)
        [row] = done.rows
        assert (row["session_id"], row["title"], row["status"]) == (session_id, session_id, "active")
        assert done.err == f'Started "{session_id}".\n'

    def test_create_accepts_all_fields_of_a_session(self, cli: CommandLine) -> None:
        session_id = new_id("whole")
        words = ["--title", "Solar roof", "--participants", "Anna, Ben", "-p", "Zoë", "--context", "Which panels?"]
        made = cli.run("create", session_id, *words, "--json").json
        assert (made["title"], made["participants"]) == ("Solar roof", ["Anna", "Ben", "Zoë"])
        assert (made["context"], made["created"]) == ("Which panels?", True)
        again = cli.run("create", session_id, *words, "--json").json
        assert again["created"] is False
        cli.run("create", session_id, "--title", "Another", code=1)

    def test_list_can_be_filtered_and_limited(self, cli: CommandLine, stack: Stack) -> None:
        ids = [new_id("listed") for _ in range(3)]
        for session_id in ids:
            stack.send("create_session", session_id, title="Listed")
        stack.send("pause_session", ids[0])
        stack.send("complete_session", ids[1])
        for status, session_id in zip(("paused", "completed", "active"), ids, strict=True):
            found = cli.run("list", "--status", status, "--limit", "0", "--json", "id,status").json
            assert session_id in [item["id"] for item in found]
            assert {item["status"] for item in found} == {status}
        done = cli.run("list", "--limit", "2")
        assert len(done.rows) == 2
        assert "Use --limit 0" in done.err
        assert cli.run("list", "--status", "sleeping", code=2).out == ""

    def test_a_list_of_any_length_is_complete(self, cli: CommandLine, stack: Stack) -> None:
        session_id = new_id("many")
        items = [{"command": "store_memory", "data": {"key": f"k{n:04}", "content": n}} for n in range(500)]
        stack.send("batch", session_id, commands=[{"command": "create_session", "data": {"title": "M"}}, *items[:499]])
        stack.send(
            "batch", session_id, commands=[{**items[0], "data": {"key": f"l{n}", "content": n}} for n in range(300)]
        )
        found = cli.run("memories", session_id, "--limit", "0").rows
        assert len({row["key"] for row in found}) == 799

    def test_show_prints_all_fields_of_a_session(self, cli: CommandLine, full: str) -> None:
        [row] = cli.run("show", full).rows
        assert (row["title"], row["participants"], row["context"]) == ("Solar roof", '["Anna","Ben"]', "Which panels?")
        counts = ("conversation_chunks", "memories", "tasks", "artifacts", "active_tasks")
        assert [row[f"stats.{name}"] for name in counts] == ["2", "3", "2", "2", "1"]

    def test_a_missing_session_is_named(self, cli: CommandLine, full: str) -> None:
        done = cli.run("show", full + "x", code=3)
        assert done.out == ""
        assert done.err.startswith(f"Error: Session '{full}x' not found.\n")
        assert repr(full) in done.err
        error = json.loads(cli.run("show", full + "x", "--json", code=3).err)["error"]
        assert (error["code"], error["field"]) == ("session_not_found", "session_id")

    def test_summary_prints_what_is_needed_to_continue(self, cli: CommandLine, full: str) -> None:
        summary = cli.run("summary", full, "--json").json
        assert [item["key"] for item in summary["open_questions"]] == ["who"]
        assert [item["key"] for item in summary["decisions"]] == ["panels"]
        assert [item["task_id"] for item in summary["tasks"]] == ["t1"]
        assert summary["title"] == "Solar roof"
        [row] = cli.run("summary", full).rows
        assert json.loads(row["decisions"])[0]["key"] == "panels"

    def test_sessions_are_paused_resumed_and_completed(self, cli: CommandLine, stack: Stack) -> None:
        session_id = new_id("states")
        stack.send("create_session", session_id, title="States")
        for command, status in (("pause", "paused"), ("resume", "active"), ("complete", "completed")):
            done = cli.run(command, session_id, "--json", "status")
            assert done.json == {"status": status}
            assert '"States"' in done.err
        assert stack.client.get(f"/v1/sessions/{session_id}").json()["status"] == "completed"


class TestDeleting:
    @pytest.fixture
    def doomed(self, stack: Stack) -> str:
        """A session to delete."""
        session_id = new_id("doomed")
        stack.send("create_session", session_id, title="Doomed [red]")
        stack.send("store_memory", session_id, content="x")
        return session_id

    def exists(self, stack: Stack, session_id: str) -> bool:
        return stack.client.get(f"/v1/sessions/{session_id}").status_code == 200

    def test_without_a_terminal_delete_requires_yes(self, cli: CommandLine, stack: Stack, doomed: str) -> None:
        done = cli.run("delete", doomed, code=2)
        assert "--yes" in done.err
        assert '"Doomed [red]"' in done.err
        assert self.exists(stack, doomed)

    def test_yes_deletes_without_a_prompt(self, cli: CommandLine, stack: Stack, doomed: str) -> None:
        assert cli.run("delete", doomed, "--yes").err == 'Deleted "Doomed [red]" and its contents.\n'
        assert not self.exists(stack, doomed)
        cli.run("delete", doomed, "--yes", code=3)

    @pytest.mark.parametrize(("answer", "code"), [("n", 1), ("", 1), ("yes", 0), ("y", 0)])
    def test_in_a_terminal_it_lists_the_contents_and_asks(
        self, cli: CommandLine, stack: Stack, doomed: str, answer: str, code: int
    ) -> None:
        terminal = cli.terminal("delete", doomed, columns=200)
        assert f'Permanently delete "Doomed [red]" ({doomed}) with 1 memory?' in terminal.wait_for("[y/N]")
        terminal.type(f"{answer}\n")
        assert terminal.end()[0] == code
        assert self.exists(stack, doomed) == bool(code)


class TestSearching:
    def test_words_phrases_and_alternatives_are_found(self, cli: CommandLine, full: str) -> None:
        for query in (WORD, f"nothing-else OR {WORD}", f'"do {WORD}"', f"{WORD} -elephant"):
            [hit] = cli.run("search-conversations", query, "--json", "id,session_id,snippet,match").json
            assert (hit["id"], hit["session_id"], hit["match"]) == ("c1", full, "all")
            assert f"**{WORD}**" in hit["snippet"]
        assert cli.run("search-conversations", WORD, "--since", "1h", "--session", full).rows[0]["chunk_id"] == "c1"
        assert cli.run("search-conversations", WORD, "--until", "2020-01-01").rows == []

    def test_memories_are_found_by_type_and_tags(self, cli: CommandLine, full: str) -> None:
        for narrowed in (
            [],
            ["--type", "decision"],
            ["--tags", "other,roof"],
            ["--type", "decision", "--tags", "roof"],
        ):
            rows = cli.run("search-memories", WORD, *narrowed).rows
            assert [(row["key"], row["session_id"]) for row in rows] == [("panels", full)]
        assert cli.run("search-memories", WORD, "--type", "idea").rows == []
        assert cli.run("search-memories", WORD, "--tags", "garden").rows == []

    def test_hostile_queries_are_treated_as_words(self, cli: CommandLine) -> None:
        for query in ("'; DROP TABLE sessions; --", "((((", "\\", "%", '"', "a & b | c <-> !", "日本", "x" * 1_000):
            assert cli.run("search-conversations", query, "--json").json is not None
        assert "1000" in cli.run("search-conversations", "x" * 1_001, code=1).err


class TestContents:
    def test_a_transcript_is_whole(self, cli: CommandLine, full: str) -> None:
        first, second = cli.run("transcript", full).rows
        assert first["content"] == rf"Anna: shall we do {WORD}?\nBen:\tYes."
        assert second["content"] == "x" * 200_000
        assert [item["id"] for item in cli.run("transcript", full, "--limit", "1", "--json", "id").json] == ["c1"]
        [end] = cli.run("transcript", full, "--chunk", second["chunk_id"], "--offset", "199990").rows
        assert end["content"] == "x" * 10
        assert "'c1'" in cli.run("transcript", full, "--chunk", "c", code=3).err

    def test_activity_is_listed_and_sessions_are_found_by_words(self, cli: CommandLine, full: str) -> None:
        activity = cli.run("activity", "--session", full, "--since", "1h", "--limit", "0", "--json", "kind,id").json
        assert {"kind": "session", "id": full} in activity
        assert {item["kind"] for item in activity} >= {"conversation", "memory"}
        assert [row["session_id"] for row in cli.run("list", "--words", full.upper(), "--since", "1h").rows] == [full]
        assert cli.run("list", "--words", full, "--until", "2020-01-01").rows == []

    def test_memories_are_whole(self, cli: CommandLine, full: str) -> None:
        found = {item["key"]: item for item in cli.run("memories", full, "--json").json}
        assert found["numbers"]["content"] == {"values": list(range(30_000))}
        assert found["panels"]["tags"] == ["roof", "a,b"]
        assert [row["key"] for row in cli.run("memories", full, "--type", "question").rows] == ["who"]
        assert [row["key"] for row in cli.run("memories", full, "--tags", "roof").rows] == ["panels"]

    def test_tasks_are_listed_by_status_and_agent(self, cli: CommandLine, full: str) -> None:
        in_session = ["--session", full, "--json", "id"]
        assert cli.run("list-tasks", *in_session).json == [{"id": "t1"}, {"id": "t2"}]
        assert cli.run("list-tasks", "--status", "cancelled", *in_session).json == [{"id": "t2"}]
        assert cli.run("list-tasks", "--agent", "researcher", *in_session).json == [{"id": "t1"}]
        assert "t1" in [row["task_id"] for row in cli.run("list-tasks", "--limit", "0").rows]

    def test_artifacts_are_listed_by_type(self, cli: CommandLine, full: str) -> None:
        assert cli.run("list-artifacts", "--session", full, "--json", "id").json == [{"id": "data"}, {"id": "report"}]
        assert cli.run("list-artifacts", "--session", full, "--type", "data").rows[0]["artifact_id"] == "data"

    def test_a_task_is_shown_with_its_artifacts(self, cli: CommandLine, stack: Stack) -> None:
        session_id = new_id("mails")
        stack.send("create_session", session_id, title="Mails")
        stack.send("delegate_task", session_id, task_id="t", description="Write")
        assert "artifacts" not in cli.run("task", "show", session_id, "t", "--json").json
        for name in ("anna", "ben"):
            stack.send("add_artifact", session_id, artifact_id=name, name="mail.md", content="Hello", task_id="t")
        shown = cli.run("task", "show", session_id, "t", "--json", "artifacts").json
        assert shown == {"artifacts": ["ben", "anna"]}
        listed = cli.run("list-artifacts", "--session", session_id, "--json", "id,task_id").json
        assert listed == [{"id": "ben", "task_id": "t"}, {"id": "anna", "task_id": "t"}]

    def test_each_revision_of_an_artifact_is_listed_and_printed(self, cli: CommandLine, stack: Stack) -> None:
        session_id = new_id("revisions")
        stack.send("create_session", session_id, title="Revisions")
        long = "old text " * 20_000
        for content in (long, "new text"):
            stack.send("add_artifact", session_id, artifact_id="report", name="Report", content=content)
        here = ("--session", session_id, "--artifact", "report")
        rows = cli.run("list-artifacts", *here, "--json", "revision,total_characters").json
        assert rows == [{"revision": number, "total_characters": size} for number, size in ((2, 8), (1, len(long)))]
        assert cli.run("artifact", session_id, "report").out == "new text"
        assert cli.run("artifact", session_id, "report", "--revision", "1").out == long
        assert cli.run("artifact", session_id, "report", "--revision", "3", code=3).out == ""

    def test_an_artifact_is_written_unchanged(self, cli: CommandLine, full: str) -> None:
        assert cli.run("artifact", full, "report").out == "# Report\n\x1b[31m\n"
        assert cli.run("artifact", full, "data").json == {"a": [1, 2.5]}
        saved = cli.folder / "saved.md"
        done = cli.run("artifact", full, "report", "-o", str(saved))
        assert (done.out, saved.read_text()) == ("", "# Report\n\x1b[31m\n")
        cli.run("artifact", full, "none", code=3)


class TestDocuments:
    def test_an_export_is_the_relays_document(self, cli: CommandLine, stack: Stack, full: str) -> None:
        for form in ("json", "markdown"):
            expected = stack.client.get(f"/v1/sessions/{full}/export", params={"format": form}).text
            assert cli.run("export", full, "--format", form).out == expected
        cli.run("export", full, "-o", "out.json")
        assert (cli.folder / "out.json").read_text() == stack.client.get(f"/v1/sessions/{full}/export").text
        assert cli.run("export", full).json["session"]["title"] == "Solar roof"

    def test_a_failed_export_leaves_no_file_behind(self, cli: CommandLine) -> None:
        kept = cli.folder / "kept.json"
        kept.write_text("before")
        cli.run("export", "not-there", "-o", str(kept), code=3)
        assert kept.read_text() == "before"
        assert [path.name for path in cli.folder.glob(".kept*")] == []
        cli.run("export", code=2)
        cli.run("export", "x", "--all", code=2)

    def test_an_export_of_all_has_one_document_a_line(self, cli: CommandLine, full: str) -> None:
        done = cli.run("export", "--all")
        documents = {item["session"]["session_id"]: item for item in json_lines(done.out)}
        assert documents[full] == cli.run("export", full).json
        listed = cli.run("list", "-n", "0", "--json", "id").json
        assert set(documents) == {item["id"] for item in listed}
        times = [item["session"]["created_at"] for item in documents.values()]
        assert times == sorted(times)

    def test_an_export_can_be_imported_unchanged(self, cli: CommandLine, stack: Stack, full: str) -> None:
        if "/v1/import" not in stack.client.get("/openapi.json").json()["paths"]:
            pytest.skip("This relay cannot import yet.")
        one, other = new_id("one"), new_id("other")
        for session_id in (one, other):
            stack.send("create_session", session_id, title="Moved")
            stack.send("store_memory", session_id, key="k", content={"b": 1, "a": [1e23, -0.0]})
        documents = [cli.run("export", session_id).out for session_id in (one, other)]
        for session_id in (one, other):
            cli.run("delete", session_id, "--yes")
        assert cli.run("import", "-", "--json", input=documents[0]).json == [{"session_id": one, "created": True}]
        lines = "".join(f"{document.replace(chr(10), ' ')}\n" for document in documents)
        made = cli.run("import", "-", "--json", input=lines).json
        assert made == [{"session_id": one, "created": False}, {"session_id": other, "created": True}]
        assert [cli.run("export", session_id).out for session_id in (one, other)] == documents
        cli.run("import", "-", input='{"format": "something else"}', code=1)


class TestSending:
    def test_a_payload_is_sent_as_it_would_be_posted(self, cli: CommandLine, stack: Stack) -> None:
        session_id = new_id("sent")
        stack.send("create_session", session_id, title="Sent")
        payload = {"command": "store_memory", "session_id": session_id, "data": {"key": "k", "content": 1}}
        (cli.folder / "payload.json").write_text(json.dumps(payload))
        receipt = cli.run("send", "payload.json", "--json").json
        assert receipt["status"] == "accepted"
        wait_for(lambda: cli.run("deliveries", receipt["delivery_id"], "--json", "status").json["status"] == "applied")
        answer = cli.run("send", "-", "--wait", "30", "--json", input=json.dumps(payload)).json
        assert (answer["status"], answer["data"]["revision"], answer["data"]["created"]) == ("success", 1, False)

    def test_the_delivery_id_of_a_payload_is_kept(self, cli: CommandLine, stack: Stack) -> None:
        session_id = new_id("sent")
        body = {"command": "create_session", "session_id": session_id, "id": new_id("id"), "data": {"title": "x"}}
        answers = [cli.run("send", "-", "--wait", "30", "--json", input=json.dumps(body)).json for _ in range(2)]
        assert [answer["delivery_id"] for answer in answers] == [body["id"]] * 2
        assert answers[0] == answers[1]

    @pytest.mark.parametrize(
        ("payload", "code"),
        [
            ("{", 1),
            ('{"command": "stor_memory", "data": {}}', 1),
            ('{"command": "pause_session", "session_id": "no"}', 3),
        ],
    )
    def test_an_invalid_payload_is_explained(self, cli: CommandLine, payload: str, code: int) -> None:
        done = cli.run("send", "-", "--wait", "30", input=payload, code=code)
        assert done.out == ""
        assert done.err.startswith("Error: ")

    def test_the_examples_can_be_sent(self, cli: CommandLine) -> None:
        example = ROOT / "examples" / "create_session.json"
        assert cli.run("send", str(example), "--wait", "30").rows[0]["status"] == "success"


class TestOperators:
    def test_deliveries_are_listed_and_shown(self, cli: CommandLine, stack: Stack, full: str) -> None:
        rows = cli.run("deliveries", "--session", full, "--status", "applied", "-n", "0").rows
        assert "create_session" in [row["command"] for row in rows]
        shown = cli.run("deliveries", rows[0]["delivery_id"], "--json").json
        assert shown["status"] == "applied"
        cli.run("deliveries", "no-such-delivery", code=3)

    def test_keys_are_created_listed_and_revoked(self, cli: CommandLine, stack: Stack) -> None:
        name = new_id("sender")
        made = cli.run("keys", "create", name, "-s", "read", "-s", "write", "--sessions", f"{name}-*", "--json").json
        assert made["key"].startswith("srk_")
        listed = {item["name"]: item for item in cli.run("keys", "list", "--json").json}
        assert (listed[name]["scopes"], listed[name]["sessions"]) == (["read", "write"], f"{name}-*")
        assert "key" not in listed[name]
        refused = cli.run("keys", "revoke", name, code=2)
        assert f"Permanently revoke {name} ({made['key_id']}: read write)?" in refused.err
        limited = {"API_KEY": made["key"]}
        wait_for(lambda: cli.run("list", environment=limited).rows == [], what="key accepted")
        assert "admin" in cli.run("keys", "list", code=4, environment=limited).err
        cli.run("keys", "revoke", name, "--yes")
        wait_for(lambda: "Error:" in cli.run("list", code=4, environment=limited).err, what="refused")
        cli.run("keys", "revoke", "nobody", "--yes", code=3)

    def test_refusals_agents_and_status_are_printed(self, cli: CommandLine, stack: Stack) -> None:
        cli.run("list", code=4, environment={"API_KEY": "wrong"})
        wait_for(lambda: cli.run("refusals", "--cause", "unknown_key", "--limit", "1").rows, what="rejection recorded")
        assert "researcher" in [row["name"] for row in cli.run("agents", "--limit", "0").rows]
        states = {row["part"]: row["state"] for row in cli.run("status").rows}
        assert (states["relay"], states["redis"]) == ("ok", "ok")
        assert states["postgres"] in ("ok", "weak"), "the Postgres of the tests does not sync"

    def test_a_journal_is_watched_as_it_grows(self, cli: CommandLine, stack: Stack) -> None:
        session_id = new_id("watched")
        stack.send("create_session", session_id, title="Watched")
        terminal = cli.terminal("watch", session_id, "--json", "event,message")
        terminal.wait_for("create_session")
        stack.send("store_memory", session_id, key="k", content="x")
        terminal.wait_for("store_memory")
        terminal.interrupt()
        code, text = terminal.end()
        assert code == 130
        events = [json.loads(line)["event"] for line in text.splitlines() if line.startswith("{")]
        assert events == ["create_session", "store_memory"]
        assert "Traceback" not in text


class TestPipes:
    @pytest.fixture
    def named(self, stack: Stack) -> str:
        """A session with a plain title, the latest."""
        session_id = new_id("named")
        stack.send("create_session", session_id, title="A title\\with a backslash")
        return session_id

    @pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed here")
    def test_jq_can_parse_the_output(self, cli: CommandLine, named: str) -> None:
        done = cli.shell(
            "set -o pipefail; session-cli list --json id,title | jq -r '.[] | [.id, .title] | @csv' | head -1"
        )
        assert done.out == f'"{named}","A title\\with a backslash"\n'

    def test_a_closed_pipe_ends_it_quietly(self, cli: CommandLine, named: str, full: str) -> None:
        heading, code = cli.shell("session-cli list -n 0 | head -1; echo ${PIPESTATUS[0]}").out.splitlines()
        assert heading.startswith("session_id\ttitle\t")
        assert code in ("0", "141"), "it may have written everything before the pipe closed"
        for command in (f"transcript {full}", f"export {full}", f"memories {full} --json", f"summary {full}"):
            done = cli.shell(f"session-cli {command} | head -c 5; code=${{PIPESTATUS[0]}}; echo; echo $code")
            assert done.out.splitlines()[-1] == "141", f"{command}: {done.err}"
            assert done.err == ""

    def test_cat_gets_the_output_for_programs(self, cli: CommandLine, named: str) -> None:
        assert cli.shell("session-cli list -n 3 | cat").out == cli.run("list", "-n", "3").out
        assert cli.run("list", "-n", "1").rows[0]["title"] == r"A title\\with a backslash"

    def test_an_empty_relay_has_a_heading_and_no_rows(self, cli: CommandLine) -> None:
        done = cli.run("list-tasks", "--agent", "nobody-has-this-name")
        assert (done.rows, done.err) == ([], "")
        assert done.out.startswith("task_id\t")
        assert cli.run("list-tasks", "--agent", "nobody-has-this-name", "--json").json == []

    @pytest.mark.parametrize(
        ("path", "command"),
        [
            ("/v1/sessions", "list"),
            ("/v1/sessions/{full}/memories", "memories {full}"),
            ("/v1/sessions/{full}/transcript", "transcript {full}"),
            ("/v1/tasks", "list-tasks"),
            ("/v1/artifacts", "list-artifacts"),
            ("/v1/deliveries", "deliveries"),
            ("/v1/agents", "agents"),
            ("/v1/keys", "keys list"),
            ("/v1/search?in=conversations&q=" + WORD, "search-conversations " + WORD),
            ("/v1/search?in=memories&q=" + WORD, "search-memories " + WORD),
        ],
    )
    def test_every_field_can_be_selected(
        self, cli: CommandLine, stack: Stack, full: str, path: str, command: str
    ) -> None:
        items: list[Payload] = stack.client.get(path.format(full=full)).json()["items"]
        assert items, "the session has one item of each kind"
        names = sorted({name for item in items for name in item})
        chosen: list[dict[str, Any]] = cli.run(*command.format(full=full).split(), "--json", ",".join(names)).json
        assert chosen
        assert all(list(item) == names for item in chosen)

"""Commands of session-cli for people, who write no JSON: on a relay, on Postgres and on files."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.clients.agents import Agent
from tests.support.clients.keys import new_key
from tests.support.processes.cli_backends import BACKENDS, cli_on, on_relay
from tests.support.processes.command_line import CommandLine
from tests.support.processes.stack import Stack, new_id, new_word, wait_for
from tests.support.project import API_KEY

STYLE = re.compile(r"\x1b\[[0-9;]*m")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture(scope="module", params=BACKENDS)
def cli(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """session-cli on each backend in turn."""
    with cli_on(request, tmp_path_factory.mktemp("people")) as command_line:
        yield command_line


@pytest.fixture
def garden(cli: CommandLine) -> str:
    """A session."""
    session_id = new_id("garden")
    cli.run("create", session_id, "--title", "Garden")
    return session_id


@pytest.fixture(scope="module")
def relay(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """session-cli on a relay."""
    return on_relay(tmp_path_factory.mktemp("relay"), stack)


class TestRemember:
    def test_a_memory_is_stored_with_what_is_given(self, cli: CommandLine, garden: str) -> None:
        options = ["--type", "decision", "--tag", "water", "--tag", "a,b", "--key", "barrel"]
        done = cli.run("remember", garden, "One barrel", *options, "--rationale", "It fits")
        assert done.err == 'Stored the decision "barrel".\n'
        [row] = done.rows
        assert (row["key"], row["revision"], row["created"], row["session_id"]) == ("barrel", "1", "true", garden)
        [memory] = cli.run("memories", garden, "--json").json
        assert memory["content"] == {"decision": "One barrel", "rationale": "It fits"}
        assert memory["tags"] == ["water", "a,b"]
        again = cli.run("remember", garden, "Two barrels", "--key", "barrel", "--json", "revision,created").json
        assert again == {"revision": 2, "created": False}

    def test_the_text_is_read_from_stdin(self, cli: CommandLine, garden: str) -> None:
        cli.run("remember", garden, "-", "--type", "note", input="First line\nsecond: [red] \\ ü\n")
        [memory] = cli.run("memories", garden, "--json").json
        assert memory["content"] == "First line\nsecond: [red] \\ ü"

    def test_a_due_action_item_is_open(self, cli: CommandLine, garden: str) -> None:
        cli.run("remember", garden, "Call", "--type", "action_item", "--due", "2027-03-01", "--key", "call")
        [item] = cli.run("memories", garden, "--status", "open", "--json", "key,due").json
        assert item == {"key": "call", "due": "2027-03-01"}
        cli.run("remember", garden, "Call", "--key", "call", "--status", "done")
        assert cli.run("memories", garden, "--status", "open").rows == []

    @pytest.mark.parametrize("text", ["", "  ", "-"])
    def test_an_empty_text_is_a_usage_error(self, cli: CommandLine, garden: str, text: str) -> None:
        assert "The text is empty." in cli.run("remember", garden, text, code=2).err

    def test_a_missing_session_is_named_with_the_way_out(self, cli: CommandLine) -> None:
        done = cli.run("remember", "no-such-session", "x", code=3)
        assert done.err.startswith("Error: Session 'no-such-session' not found.\n")
        assert "session-cli create" in done.err


class TestSay:
    def test_words_are_said_again_if_they_are_said_again(self, cli: CommandLine, garden: str) -> None:
        for text, speaker in (("Shall we?", "Anna"), ("Yes.", "Ben"), ("Really?", "Anna"), ("Yes.", "Ben")):
            assert cli.run("say", garden, text, "--as", speaker).rows[0]["created"] == "true"
        chunks = cli.run("transcript", garden, "--json").json
        assert [chunk["content"] for chunk in chunks] == ["Anna: Shall we?", "Ben: Yes.", "Anna: Really?", "Ben: Yes."]
        assert chunks[1]["participants"] == ["Ben"]

    def test_a_long_text_is_split_and_stored_once(self, cli: CommandLine, garden: str) -> None:
        text = "".join(f"Anna: line {n}\n" for n in range(20_000))
        for _ in range(2):
            cli.run("say", garden, "-", "--format", "transcript", input=text)
        chunks = cli.run("transcript", garden, "--json").json
        assert len(chunks) == 4
        assert all(chunk["content"].endswith("\n") for chunk in chunks[:-1])
        assert "".join(chunk["content"] for chunk in chunks) == text.rstrip("\n")
        assert {chunk["format"] for chunk in chunks} == {"transcript"}


class TestTasks:
    def test_a_task_is_delegated_shown_listed_and_cancelled(self, cli: CommandLine, garden: str) -> None:
        words = ["--agent", "scout", "--id", "prices", "--priority", "3", "--input", '{"b": 1e23, "a": [-0.0]}']
        done = cli.run("delegate", garden, "Compare the prices", *words)
        assert (done.rows[0]["task_id"], done.rows[0]["session_id"]) == ("prices", garden)
        assert f"session-cli task show {garden} prices --wait" in done.err
        shown = cli.run("task", "show", garden, "prices", "--json").json
        assert (shown["status"], shown["agent_name"], shown["priority"]) == ("pending", "scout", 3)
        assert shown["input_data"] == {"b": 1e23, "a": [-0.0]}
        assert cli.run("task", "list", "--session", garden, "--json", "id").json == [{"id": "prices"}]
        assert "cancelled" in cli.run("task", "cancel", garden, "prices", "--reason", "Karl has one").out
        [row] = cli.run("task", "show", garden, "prices").rows
        assert row["status"] == "cancelled"
        assert cli.run("task", "show", garden, "prices", "--json", "cancel_reason").json == {
            "cancel_reason": "Karl has one"
        }

    def test_waiting_for_a_task_that_was_cancelled_fails(self, cli: CommandLine, garden: str) -> None:
        cli.run("delegate", garden, "-", "--id", "t", input="Compare\nthe prices\n")
        cli.run("task", "cancel", garden, "t")
        done = cli.run("task", "show", garden, "t", "--wait", "--json", "status,description", code=1)
        assert done.json == {"status": "cancelled", "description": "Compare\nthe prices"}

    def test_an_answer_needs_a_question(self, cli: CommandLine, garden: str) -> None:
        cli.run("delegate", garden, "Compare", "--id", "t")
        done = cli.run("task", "answer", garden, "t", "Yes", code=1)
        assert "has no open question" in done.err
        assert "session-cli task show" in done.err

    @pytest.mark.parametrize("wrong", ["{", "[1]", '"x"', "\udcff"])
    def test_input_must_be_an_object(self, cli: CommandLine, garden: str, wrong: str) -> None:
        assert "--input expects a JSON object" in cli.run("delegate", garden, "x", "--input", wrong, code=2).err


class TestSearch:
    def test_all_areas_are_searched_and_one_can_be_chosen(self, cli: CommandLine, garden: str) -> None:
        word = new_word("wheelbarrow")
        cli.run("say", garden, f"Anna: a {word}")
        cli.run("remember", garden, f"Buy a {word}", "--key", "buy", "--type", "idea")
        cli.run("delegate", garden, f"Compare each {word}", "--id", "compare")
        hits = cli.run("search", word, "--session", garden, "--json").json
        assert {hit["area"] for hit in hits} == {"conversations", "memories", "tasks"}
        chosen = cli.run("search", word, "--in", "memories", "--in", "tasks", "--json", "key,task_id").json
        assert sorted(map(str, chosen)) == sorted(
            map(str, [{"key": "buy", "task_id": None}, {"key": None, "task_id": "compare"}])
        )
        assert cli.run("search", word, "--type", "decision").rows == []
        assert word in cli.drawn("search", word)


class TestListing:
    def test_ls_is_list(self, cli: CommandLine, garden: str) -> None:
        assert cli.run("ls", "--json").out == cli.run("list", "--json").out

    def test_whoami_says_where_one_is(self, cli: CommandLine, stack: Stack) -> None:
        found = cli.run("whoami", "--json").json
        assert found["backend"] == cli.environment.get("STORAGE_BACKEND", "http")
        match found["backend"]:
            case "http":
                assert (found["place"], found["key_from"]) == (stack.url, "API_KEY in the environment")
                assert "admin" in found["scopes"]
            case "postgres":
                assert found["place"].startswith("postgresql")
            case "json":
                assert found["place"] == str(cli.folder / "data")


class TestTrigger:
    def test_an_example_is_sent_with_its_session(self, cli: CommandLine) -> None:
        listed = cli.run("trigger", "--list").rows
        assert listed == cli.run("trigger").rows
        assert "store_memory_decision" in [row["example"] for row in listed]
        sent = cli.run("trigger", "store_memory_decision", "--json", "command,status").json
        assert sent == {"command": "store_memory", "status": "success"}
        assert "inverter" in cli.run("memories", "example-solar-roof").out

    def test_it_can_be_sent_for_another_session(self, cli: CommandLine, garden: str) -> None:
        cli.run("trigger", "store_memory_idea", "--session", garden)
        assert [row["key"] for row in cli.run("memories", garden).rows] == ["charge-the-car"]
        cli.run("trigger", "store_memory_idea", "--session", "no-such-session", code=3)
        assert "session-cli trigger" in cli.run("trigger", "nothing", code=2).err

    def test_an_example_deletes_another_session_only_if_that_is_confirmed(self, cli: CommandLine, garden: str) -> None:
        assert "pass --yes" in cli.run("trigger", "delete_session", "--session", garden, code=2).err
        cli.run("trigger", "delete_session", "--session", garden, "--yes")
        cli.run("show", garden, code=3)


class Receiver(ThreadingHTTPServer):
    """Keeps the webhooks that it receives; refuses as many as it is told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Keeping)
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.refusals = 0


class _Keeping(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append(({name.lower(): value for name, value in self.headers.items()}, body))
        self.server.refusals -= 1
        self.send_response(204 if self.server.refusals < 0 else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A local receiver of webhooks."""
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class TestListen:
    def test_events_are_forwarded_signed_and_again_if_they_are_refused(
        self, cli: CommandLine, garden: str, receiver: Receiver
    ) -> None:
        receiver.refusals = 1
        url = f"http://127.0.0.1:{receiver.server_address[1]}/hooks"
        terminal = cli.terminal("listen", garden, "--forward-to", url, environment={"FORWARD_SECRET": SECRET})
        terminal.wait_for("Ctrl-C")
        cli.run("remember", garden, "One barrel", "--key", "barrel")
        terminal.wait_for("store_memory")
        terminal.interrupt()
        code, text = terminal.end()
        assert (code, SECRET in text) == (130, False)
        (first, body), (second, again) = receiver.received
        assert (first["webhook-id"], body) == (second["webhook-id"], again)
        signed = f"{second['webhook-id']}.{second['webhook-timestamp']}.".encode() + body
        expected = hmac.digest(base64.b64decode(SECRET[6:]), signed, hashlib.sha256)
        assert second["webhook-signature"] == f"v1,{base64.b64encode(expected).decode()}"
        assert abs(int(second["webhook-timestamp"]) - time.time()) < 60
        content = json.loads(body)
        assert (content["type"], content["session_id"]) == ("store_memory", garden)
        assert content["data"]["message"] == 'Stored the general memory "barrel".' or "barrel" in str(content["data"])

    def test_an_event_that_was_refused_can_be_sent_again(
        self, cli: CommandLine, garden: str, receiver: Receiver
    ) -> None:
        receiver.refusals = 3
        url = f"http://127.0.0.1:{receiver.server_address[1]}/hooks/"
        listen = ["listen", garden, "--forward-to", url]
        first = cli.terminal(*listen, columns=200)
        first.wait_for("Ctrl-C")
        cli.run("remember", garden, "One barrel", "--key", "barrel")
        first.wait_for("--after ")
        first.interrupt()
        [after] = re.findall(r"--after (\S+)", STYLE.sub("", first.end()[1]))
        again = cli.terminal(*listen, "--after", after)
        again.wait_for("delivered")
        again.interrupt()
        again.end()
        assert (len(receiver.received), len({headers["webhook-id"] for headers, _ in receiver.received})) == (4, 1)

    def test_it_is_refused_where_the_events_could_be_read(self, cli: CommandLine, garden: str) -> None:
        assert "is not encrypted" in cli.run("listen", garden, "--forward-to", "http://10.0.0.1:1", code=2).err
        secret = {"FORWARD_SECRET": "whsec_short"}
        done = cli.run("listen", garden, "--forward-to", "http://127.0.0.1:1", code=2, environment=secret)
        assert "whsec_short" not in done.err


class TestOnRelay:
    """What needs a relay: agents, pages, requests, keys."""

    @pytest.fixture
    def session_id(self, relay: CommandLine) -> str:
        """A session."""
        session_id = new_id("delegated")
        relay.run("create", session_id)
        return session_id

    def test_a_question_is_put_to_the_person_who_waits(self, relay: CommandLine, stack: Stack, session_id: str) -> None:
        agent = Agent(stack)
        agent.register()  # With a type of its own, or it would claim tasks of other tests that name no agent.
        terminal = relay.terminal("delegate", session_id, "Buy a barrel", "--agent", agent.name, "--wait", columns=120)
        terminal.wait_for("The task is pending")
        agent.perform(agent.claim(wait=10), "ask", question="Of wood?")
        terminal.wait_for("asks: Of wood?")
        terminal.wait_for("Answer: ")
        terminal.type("Yes\n")
        task = agent.claim(wait=20)
        assert "Yes" in str(task["questions"])
        agent.perform(task, "complete", output={"text": "Bought", "price": 80})
        code, text = terminal.end()
        assert code == 0
        assert re.search(r"Output +Bought\s", STYLE.sub("", text))

    def test_a_program_that_waits_gets_the_question_as_data(
        self, relay: CommandLine, stack: Stack, session_id: str
    ) -> None:
        agent = Agent(stack)
        agent.register()
        relay.run("delegate", session_id, "Buy", "--agent", agent.name, "--id", "buy")
        agent.perform(agent.claim(wait=10), "ask", question="Of wood?")
        done = relay.run("task", "show", session_id, "buy", "--wait", "--json", "status,question", code=1)
        assert done.json == {"status": "input_required", "question": "Of wood?"}
        assert f"session-cli task answer {session_id} buy" in done.err
        relay.run("task", "answer", session_id, "buy", "-", input="No\n")
        agent.perform(agent.claim(wait=10), "complete", output="x" * 200_000)
        assert (
            relay.run("task", "show", session_id, "buy", "--wait", "--json", "output").json["output"] == "x" * 200_000
        )

    def test_any_request_can_be_sent(self, relay: CommandLine, stack: Stack, session_id: str) -> None:
        answer = stack.client.get(f"/v1/sessions/{session_id}").text
        assert relay.run("api", "GET", f"/v1/sessions/{session_id}").out == answer
        body = json.dumps({"session_id": session_id, "title": "Renamed"})
        assert relay.run("api", "post", "/v1/commands/rename_session", "-d", body).json["status"] == "success"
        assert relay.run("show", session_id, "--json", "title").json == {"title": "Renamed"}
        missing = relay.run("api", "GET", "/v1/sessions/nowhere", code=3)
        assert json.loads(missing.out)["error"]["code"] == "session_not_found"
        assert missing.err.startswith("Error: Session 'nowhere' not found.")
        assert relay.run("api", "GET", "/healthz").out
        found = relay.run("api", "GET", f"/v1/sessions/{session_id}", "--json").json
        assert (found["status"], found["body"]["title"]) == (200, "Renamed")
        failed = relay.run("api", "GET", "/v1/sessions/nowhere", "--json", "status", code=3)
        assert (failed.json, json.loads(failed.err)["error"]["code"]) == ({"status": 404}, "session_not_found")
        assert '\n  "status": ' in relay.drawn("api", "GET", f"/v1/sessions/{session_id}")

    @pytest.mark.parametrize("path", ["v1/sessions", "http://127.0.0.1:1/", "//x y", "/v1\n", "@127.0.0.1"])
    def test_a_path_leads_nowhere_else(self, relay: CommandLine, path: str) -> None:
        assert "Invalid path" in relay.run("api", "GET", path, code=2).err

    def test_the_page_of_a_session_is_opened(self, relay: CommandLine, stack: Stack, session_id: str) -> None:
        assert relay.run("open", session_id).out == f"{stack.url}/sessions/{session_id}\n"
        assert relay.run("open", "--json").json == {"url": f"{stack.url}/"}
        relay.run("open", "nowhere", code=3)
        browser = relay.folder / "browser"
        browser.write_text(f'#!/bin/sh\necho "$1" > {relay.folder}/opened\n')
        browser.chmod(0o755)
        assert "Opening " in relay.shown("open", session_id, columns=200, environment={"BROWSER": str(browser)})
        wait_for((relay.folder / "opened").exists, what="opened")
        assert (relay.folder / "opened").read_text() == f"{stack.url}/sessions/{session_id}\n"

    def test_a_narrow_key_is_named_with_its_limits(self, relay: CommandLine, stack: Stack) -> None:
        name = new_id("narrow")
        key = new_key(stack, name=name, scopes=["agent"], sessions="garden-*")
        narrow = {"API_KEY": key}
        headers = {"X-API-Key": key}
        wait_for(lambda: stack.client.get("/v1/whoami", headers=headers).status_code == 200, what="known")
        found = relay.run("whoami", "--json", "name,scopes,sessions", environment=narrow).json
        assert found == {"name": name, "scopes": ["agent"], "sessions": "garden-*"}
        relay.run("whoami", code=4, environment={"API_KEY": "wrong"})

    def test_logins_to_several_relays_are_kept(self, stack: Stack, tmp_path: Path) -> None:
        cli = CommandLine(tmp_path)
        cli.run("login", stack.url, input=API_KEY)
        cli.run("login", f"localhost:{stack.url.rpartition(':')[2]}", "--profile", "other", input=API_KEY)
        profiles = {row["profile"]: row["is_current"] for row in cli.run("profile", "list").rows}
        assert profiles == {"default": "false", "other": "true"}
        assert cli.run("whoami", "--json", "profile").json == {"profile": "other"}
        elsewhere = {"RELAY_URL": "http://127.0.0.1:9", "API_KEY": "none"}
        assert cli.run("whoami", "--profile", "default", "--json", "profile", environment=elsewhere).json == {
            "profile": "default"
        }
        cli.run("profile", "use", "default")
        assert cli.run("whoami", "--json", "place").json == {"place": stack.url}
        assert "Stored: default, other." in cli.run("list", "--profile", "none", code=2).err
        cli.run("logout", "--profile", "other")
        assert [row["profile"] for row in cli.run("profile", "list").rows] == ["default"]
        assert API_KEY not in cli.run("profile", "list", "--json").out

    def test_ids_keys_and_agents_are_completed(self, relay: CommandLine, stack: Stack, session_id: str) -> None:
        agent = Agent(stack)
        agent.register()
        relay.run("remember", session_id, "x", "--key", "barrel")
        relay.run("delegate", session_id, "x", "--id", "prices")
        name = new_id("sender")
        relay.run("keys", "create", name, "-s", "read")

        def completed(line: str) -> set[str]:
            words = line.split(" ")
            asked = {"_SESSION_CLI_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
            return {found.partition(",")[2] for found in relay.launch(environment=asked).out.splitlines()}

        assert session_id in completed(f"session-cli show {session_id[:6]}")
        assert completed(f"session-cli delegate {session_id} x --agent {agent.name}") == {agent.name}
        assert completed(f"session-cli remember {session_id} x --key b") == {"barrel"}
        assert completed(f"session-cli task show {session_id} p") == {"prices"}
        assert completed(f"session-cli keys revoke {name}") == {name}


@pytest.mark.parametrize("line", ["open", "api GET /"])
def test_these_need_a_relay(tmp_path: Path, line: str) -> None:
    cli = CommandLine(tmp_path, STORAGE_BACKEND="json", DATA_DIR=str(tmp_path))
    assert "This command needs a relay" in cli.run(*line.split(), code=2).err

"""`session-cli agent run` with real commands: results, progress, and the state of a task after a process is killed."""

from __future__ import annotations

import base64
import json
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import Engine

from tests.support.clients.agents import Agent, Delegate, change_tasks, delegating, events_of, task_of
from tests.support.logs import SECRETS
from tests.support.processes.command_line import CommandLine
from tests.support.processes.runners import is_alive, python, running_agent
from tests.support.processes.stack import Payload, Stack, new_id, wait_for
from tests.support.project import API_KEY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

FAMILY = """
pids = os.path.join(os.environ["PIDS"], os.environ["SESSION_RELAY_TASK_ID"])
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
middle = f'''
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {stubborn!r}], start_new_session=True)
with open({pids!r} + ".new", "w") as file: file.write(f"{{os.getppid()}} {{os.getpid()}} {{child.pid}}")
os.rename({pids!r} + ".new", {pids!r})
time.sleep(300)
'''
subprocess.run([sys.executable, "-c", middle], start_new_session=True)
"""
"""A command with a child and a grandchild, both in sessions of their own; the grandchild ignores SIGTERM."""


@pytest.fixture
def cli(stack: Stack, tmp_path: Path) -> CommandLine:
    """session-cli with the stack, and with secrets in its environment."""
    return CommandLine(
        tmp_path,
        RELAY_URL=stack.url,
        API_KEY=API_KEY,
        PIDS=str(tmp_path),
        TMPDIR=str(tmp_path),
        DATABASE_URL="x",
        COPY=f"of {API_KEY}",
    )


def settled(stack: Stack, session_id: str, task_id: str = "t") -> Payload:
    """Return the task once it has finished or asks a question."""
    query = {"wait": 30}
    task: Payload = stack.client.get(f"/v1/sessions/{session_id}/tasks/{task_id}", params=query).json()
    return task


def known_key(stack: Stack, *scopes: str, name: str = "") -> str:
    """Create a key and wait until the relay accepts it."""
    made = stack.client.post("/v1/keys", json={"name": name or new_id("key"), "scopes": scopes}).json()
    headers = {"X-API-Key": made["key"]}
    wait_for(lambda: stack.client.get("/v1/agents", headers=headers).status_code not in (401, 503), what="key accepted")
    return str(made["key"])


def family(folder: Path, task_id: str = "t") -> list[int]:
    """Return the ids of the processes of FAMILY once they run."""
    path = folder / task_id
    wait_for(path.exists, what="running")
    pids = [int(pid) for pid in path.read_text().split()]
    assert all(map(is_alive, pids))
    return pids


def are_gone(pids: list[int]) -> bool:
    """Return whether all these processes have ended."""
    return not any(map(is_alive, pids))


class TestResults:
    def test_output_and_files_are_returned_and_the_command_sees_no_secrets(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate, cli: CommandLine
    ) -> None:
        code = """
task = json.load(sys.stdin)
folder = os.environ["SESSION_RELAY_ARTIFACT_DIR"]
os.makedirs(folder + "/sub")
with open(folder + "/sub/notes.md", "w") as file: file.write("# Notes\\n")
with open(f"/proc/{os.getppid()}/cmdline") as file: keeper = file.read().split("\\0")
told = {name: value for name, value in os.environ.items()}
json.dump({"task": task, "words": sys.argv[1:], "told": told, "keeper": keeper}, sys.stdout)
"""
        command = python(code, "--say={description}", "{task_id}", "{{task_id}}", '{"a": 1}', "--", "{description}")
        with running_agent(cli, "--agent", agent.name, "--worker", "laptop", command=command) as runner:
            delegate(description="-x $(touch pwned) {task_id}", input_data={"n": [1, None]})
            output = settled(stack, session_id)["output"]
            runner.wait_for_event("finished")
        assert output["words"] == [
            *("--say=-x $(touch pwned) {task_id}", "t", "{task_id}", '{"a": 1}', "--"),
            "-x $(touch pwned) {task_id}",
        ]
        task = output["task"]
        assert (task["task_id"], task["session_id"], task["input_data"]) == ("t", session_id, {"n": [1, None]})
        told = output["told"]
        assert (told["SESSION_RELAY_TASK_ID"], told["SESSION_RELAY_SESSION_ID"]) == ("t", session_id)
        assert told["SESSION_RELAY_DESCRIPTION"] == "-x $(touch pwned) {task_id}"
        assert told["SESSION_RELAY_TITLE"] == "-x $(touch pwned) {task_id}"
        assert json.loads(told["SESSION_RELAY_INPUT_DATA"]) == {"n": [1, None]}
        assert {"API_KEY", "RELAY_URL", "DATABASE_URL", "COPY", "PYTHONPATH"}.isdisjoint(told)
        assert not SECRETS.search(json.dumps(output))
        assert not (cli.folder / "pwned").exists()
        assert not Path(told["SESSION_RELAY_ARTIFACT_DIR"]).exists()
        [artifact] = stack.send("list_artifacts", session_id, task_id="t")["data"]["artifacts"]
        assert (artifact["name"], artifact["format"]) == ("sub/notes.md", "markdown")
        whole = stack.send("get_artifact", session_id, artifact_id=artifact["artifact_id"])["data"]["artifact"]
        assert whole["content"] == "# Notes\n"
        events = [(event["event"], event["status"], event["task_id"]) for event in runner.events]
        assert events == [("claimed", "claimed", "t"), ("finished", "completed", "t")]
        assert events_of(stack, session_id)[2:] == ["claim_task", "start_task", "complete_task"]
        assert not SECRETS.search("".join(runner.said))

    def test_a_result_file_takes_precedence_over_stdout_and_other_output_is_text(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate, cli: CommandLine
    ) -> None:
        code = """
print("\\x1b[31mthinking\\x1b[0m")
if sys.argv[1] == "file":
    with open(os.environ["SESSION_RELAY_RESULT_FILE"], "w") as file: file.write("the answer")
"""
        with running_agent(cli, "--agent", agent.name, command=python(code, "{description}")):
            delegate("a", description="file")
            delegate("b", description="none")
            assert settled(stack, session_id, "a")["output"] == "the answer"
            assert settled(stack, session_id, "b")["output"] == "thinking"

    def test_links_are_not_followed_and_binary_or_large_files_are_named(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate, cli: CommandLine
    ) -> None:
        secret = cli.folder / "secret"
        secret.mkdir()
        (secret / "key").write_text("not for you")
        code = f"""
os.chdir(os.environ["SESSION_RELAY_ARTIFACT_DIR"])
os.symlink({str(secret / "key")!r}, "link")
os.symlink({str(secret)!r}, "folder")
os.symlink({str(secret / "key")!r}, os.environ["SESSION_RELAY_RESULT_FILE"])
os.mkfifo("pipe")
with open("dot.png", "wb") as file: file.write(b"\\x89PNG\\0")
with open("huge.txt", "w") as file: file.write("x" * 600_000)
for number in range(3):
    with open(f"large-{{number}}.txt", "w") as file: file.write(f"{{number}}" * 400_000)
print("x" * 700_000)
"""
        with running_agent(cli, "--agent", agent.name, command=python(code)):
            delegate()
            task = settled(stack, session_id)
        assert task["status"] == "completed", task
        found = stack.send("list_artifacts", session_id)["data"]["artifacts"]
        content = {
            item["name"]: stack.client.get(f"/v1/sessions/{session_id}/artifacts/{item['artifact_id']}").json()
            for item in found
        }
        assert set(content) == {"dot.png", "large-0.txt", "left-out.txt"}
        assert base64.b64decode(content["dot.png"]["content"]) == b"\x89PNG\0"
        assert content["dot.png"]["format"] == "base64"
        assert content["dot.png"]["metadata"] == {"media_type": "image/png", "bytes": 5}
        lines = content["left-out.txt"]["content"].splitlines()
        assert {line.partition(":")[0] for line in lines} == {
            *("link", "folder", "pipe", "huge.txt", "large-1.txt", "large-2.txt")
        }
        assert "600,000 bytes, more than 500,000" in content["left-out.txt"]["content"]
        exported = stack.client.get(f"/v1/sessions/{session_id}/export").text
        assert "not for you" not in exported
        assert "truncated: 700,001 bytes in all" in exported

    def test_a_folder_deeper_than_any_path_is_removed_and_the_runner_goes_on(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate, cli: CommandLine
    ) -> None:
        code = """
os.chdir(os.environ["SESSION_RELAY_ARTIFACT_DIR"])
with open("notes.md", "w") as file: file.write("kept")
for level in range(1_500 if os.environ["SESSION_RELAY_TASK_ID"] == "deep" else 1):
    os.mkdir("down")
    os.chdir("down")
os.symlink("..", "up")
os.mkfifo("pipe")
"""
        with running_agent(cli, "--agent", agent.name, command=python(code)) as runner:
            for task_id in ("deep", "next"):
                delegate(task_id)
                assert settled(stack, session_id, task_id)["status"] == "completed"
            runner.wait_for_event("finished", count=2)
            assert not [line for line in runner.said if "removed" in line]
        assert list(cli.folder.glob("session-relay-task-*")) == []
        found = stack.send("list_artifacts", session_id, task_id="deep")["data"]["artifacts"]
        assert {item["name"] for item in found} == {"notes.md", "left-out.txt"}

    def test_progress_is_shown_in_the_task(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate, cli: CommandLine
    ) -> None:
        code = """
print("40% Read two of five pages", file=sys.stderr, flush=True)
while not os.path.exists(os.environ["PIDS"] + "/go"): time.sleep(0.05)
"""
        with running_agent(cli, "--agent", agent.name, "--lease", "2", command=python(code)):
            delegate()
            shown = wait_for(lambda: task_of(stack, session_id).get("progress", {}), what="reported")
            wait_for(lambda: task_of(stack, session_id)["progress"].get("percent") == 40, what="percentage reported")
            shown = task_of(stack, session_id)
            assert (shown["status"], shown["progress"]["text"]) == ("running", "40% Read two of five pages")
            (cli.folder / "go").touch()
            assert settled(stack, session_id)["status"] == "completed"


class TestFailures:
    def test_an_exit_code_fails_the_task_with_its_stderr_and_75_retries(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate, cli: CommandLine
    ) -> None:
        code = 'print("no such shop", file=sys.stderr)\nsys.exit(int(sys.argv[1]))'
        with running_agent(cli, "--agent", agent.name, command=python(code, "{description}")) as runner:
            delegate("a", description="3")
            delegate("b", description="75")
            failed = settled(stack, session_id, "a")
            [_, retried] = runner.wait_for_event("failed", count=2)
        assert failed["status"] == "failed"
        assert failed["error"] == "The agent's command failed with exit code 3.\n\nno such shop"
        assert retried["status"] == "pending"
        assert "exit code 75" in task_of(stack, session_id, "b")["error"]

    def test_a_description_that_looks_like_an_option_is_refused_and_nothing_runs(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate, cli: CommandLine
    ) -> None:
        command = python('open(os.environ["PIDS"] + "/ran", "w").close()', "-p", "{description}")
        with running_agent(cli, "--agent", agent.name, command=["timeout", "9", "--", *command]):
            delegate(description="--dangerously-skip-permissions")
            failed = settled(stack, session_id)
        assert (failed["status"], failed["attempt"]) == ("failed", 1)
        assert failed["error"].startswith("The description begins with -, so the agent's command would take it for")
        assert not (cli.folder / "ran").exists()

    def test_a_timeout_kills_the_whole_process_tree_and_the_task_is_retried(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate, cli: CommandLine
    ) -> None:
        with running_agent(cli, "--agent", agent.name, "--timeout", "3", command=python(FAMILY)) as runner:
            delegate()
            pids = family(cli.folder)
            [failed] = runner.wait_for_event("failed")
            assert are_gone(pids)
        assert failed["status"] == "pending"
        assert task_of(stack, session_id)["error"] == "The agent's command exceeded 3 s and was stopped."

    def test_a_cancelled_task_is_stopped_with_all_its_processes_and_the_next_one_is_done(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate, cli: CommandLine
    ) -> None:
        code = 'if os.environ["SESSION_RELAY_TASK_ID"] == "next": sys.exit()\n' + FAMILY
        with running_agent(cli, "--agent", agent.name, "--lease", "3", command=python(code)) as runner:
            delegate()
            pids = family(cli.folder)
            stack.send("cancel_task", session_id, task_id="t")
            runner.wait_for_event("cancelled")
            assert are_gone(pids)
            delegate("next")
            assert settled(stack, session_id, "next")["status"] == "completed"
        assert task_of(stack, session_id)["status"] == "cancelled"

    def test_a_runner_that_loses_a_claim_stops_its_command_and_goes_on(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate, cli: CommandLine, engine: Engine
    ) -> None:
        code = 'if os.environ["SESSION_RELAY_TASK_ID"] == "next": sys.exit()\n' + FAMILY
        with running_agent(cli, "--agent", agent.name, "--lease", "3", command=python(code)) as runner:
            delegate(max_attempts=1)  # So that the task is not requeued.
            pids = family(cli.folder)
            change_tasks(engine, session_id, "claim_token = 'of somebody else'")
            [lost] = runner.wait_for_event("lost")
            assert are_gone(pids)
            assert "no longer holds" in lost["message"]
            delegate("next")
            assert settled(stack, session_id, "next")["status"] == "completed"

    def test_processes_that_a_finished_command_leaves_running_are_ended(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate, cli: CommandLine
    ) -> None:
        code = """
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
print(child.pid)
"""
        with running_agent(cli, "--agent", agent.name, command=python(code)):
            delegate()
            assert are_gone([settled(stack, session_id)["output"]])


class TestSelection:
    def test_only_tasks_of_the_named_sender_are_claimed(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate, cli: CommandLine
    ) -> None:
        trusted = new_id("trusted")
        key = known_key(stack, "write", "delegate", name=trusted)
        with running_agent(cli, "--agent", agent.name, "--from", trusted, command=["echo", "{created_by}"]):
            delegate("theirs")
            answer = stack.client.post(
                "/v1/commands/delegate_task",
                json={"session_id": session_id, "task_id": "mine", "description": "x", "agent_name": agent.name},
                headers={"X-API-Key": key},
            )
            assert answer.status_code == 200, answer.text
            assert settled(stack, session_id, "mine")["output"] == trusted
        assert task_of(stack, session_id, "theirs")["status"] == "pending"

    def test_parallel_tasks_are_limited_by_the_option(self, stack: Stack, session_id: str, cli: CommandLine) -> None:
        agent = Agent(stack)
        delegate = delegating(stack, session_id, agent)
        code = """
folder = os.environ["PIDS"]
open(folder + "/" + os.environ["SESSION_RELAY_TASK_ID"], "w").close()
while not os.path.exists(folder + "/go"): time.sleep(0.05)
"""
        with running_agent(
            cli, "--agent", agent.name, "--concurrency", "3", "--type", new_id("kind"), command=python(code)
        ) as runner:
            for number in range(4):
                delegate(f"t{number}")
            wait_for(
                lambda: all((cli.folder / f"t{number}").exists() for number in range(3)), what="three tasks running"
            )
            assert not (cli.folder / "t3").exists()
            (cli.folder / "go").touch()
            runner.wait_for_event("finished", count=4)
            assert not any("at a time" in line for line in runner.said)

    def test_a_key_with_agent_scope_suffices_and_is_told_what_it_may_not_claim(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate, cli: CommandLine
    ) -> None:
        cli.environment["API_KEY"] = known_key(stack, "agent")
        arguments = ("--agent", agent.name, "--concurrency", "2")
        with running_agent(cli, *arguments, command=["echo", "done"]) as runner:
            assert f"session-cli agent register {agent.name} --max-concurrent 2" in "".join(runner.said)
            delegate()
            assert settled(stack, session_id)["output"] == "done"


class TestStopping:
    def test_a_stopping_runner_finishes_its_tasks_and_claims_no_new_ones(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate, cli: CommandLine
    ) -> None:
        code = """
open(os.environ["PIDS"] + "/ran", "w").close()
while not os.path.exists(os.environ["PIDS"] + "/go"): time.sleep(0.05)
print("finished in peace")
"""
        with running_agent(cli, "--agent", agent.name, command=python(code)) as runner:
            delegate("a")
            wait_for((cli.folder / "ran").exists, what="running")
            runner.stop()
            wait_for(lambda: "waiting for 1 running task to finish" in "".join(runner.said), what="message logged")
            delegate("b")
            (cli.folder / "go").touch()
            assert runner.end() == 0
        assert task_of(stack, session_id, "a")["output"] == "finished in peace"
        assert task_of(stack, session_id, "b")["status"] == "pending"

    def test_a_second_interrupt_kills_the_command_and_releases_the_task(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate, cli: CommandLine
    ) -> None:
        with running_agent(cli, "--agent", agent.name, command=python(FAMILY)) as runner:
            delegate()
            pids = family(cli.folder)
            runner.stop()
            runner.stop()
            assert runner.end() == 130
            assert "Stopping at once" in "".join(runner.said)
            assert are_gone(pids)
        assert [event["event"] for event in runner.events] == ["claimed", "released"]
        task = task_of(stack, session_id)
        assert (task["status"], task["attempt"]) == ("pending", 0)

    def test_an_idle_runner_stops_at_once(self, agent: Agent, cli: CommandLine) -> None:
        with running_agent(cli, "--agent", agent.name, command=["true"]) as runner:
            began_at = time.monotonic()
            runner.stop()
            assert runner.end() == 0
        assert time.monotonic() - began_at < 5

    def test_after_kill_9_the_command_ends_and_another_runner_does_the_task(
        self, stack: Stack, session_id: str, agent: Agent, delegate: Delegate, cli: CommandLine
    ) -> None:
        with running_agent(cli, "--agent", agent.name, "--lease", "3", command=python(FAMILY)) as first:
            delegate()
            pids = family(cli.folder)
            with running_agent(cli, "--agent", agent.name, "--lease", "3", command=["echo", "{attempt}"]) as second:
                first.kill()
                killed_at = time.monotonic()
                second.wait_for_event("claimed")
                assert time.monotonic() - killed_at < 3 + 5
                assert settled(stack, session_id)["output"] == 2
            wait_for(lambda: are_gone(pids), seconds=10, what="processes ended")
        assert events_of(stack, session_id).count("complete_task") == 1

    def test_a_result_is_delivered_once_when_the_relay_is_back(self, stack: Stack, tmp_path: Path) -> None:
        # An app of its own to kill, with the workers of the other.
        own = Stack(
            database_url=stack.environment["DATABASE_URL"],
            redis_url=stack.environment["REDIS_URL"],
            folder=tmp_path / "stack",
        )
        own.start("api")
        try:
            self._restart_in_the_middle(own, tmp_path)
        finally:
            own.close()

    def _restart_in_the_middle(self, stack: Stack, folder: Path) -> None:
        cli = CommandLine(folder, RELAY_URL=stack.url, API_KEY=API_KEY, PIDS=str(folder))
        session_id = new_id("away")
        stack.send("create_session", session_id, title="Away")
        code = """
open(os.environ["PIDS"] + "/ran", "a").write("x")
while not os.path.exists(os.environ["PIDS"] + "/go"): time.sleep(0.05)
with open(os.environ["SESSION_RELAY_ARTIFACT_DIR"] + "/a.txt", "w") as file: file.write("a")
print("made while nobody was there")
"""
        with running_agent(cli, "--agent", "steady", command=python(code)) as runner:
            stack.send("delegate_task", session_id, task_id="t", description="x", agent_name="steady")
            wait_for((folder / "ran").exists, what="running")
            stack.kill("api")
            (folder / "go").touch()
            wait_for(
                lambda: "Cannot deliver the result of 'x' yet" in "".join(runner.said), what="delivery problem logged"
            )
            stack.start("api")
            runner.wait_for_event("finished")
            assert settled(stack, session_id)["output"] == "made while nobody was there"
            assert events_of(stack, session_id).count("complete_task") == 1
            assert len(stack.send("list_artifacts", session_id)["data"]["artifacts"]) == 1
            assert (folder / "ran").read_text() == "x"
            stack.send("delegate_task", session_id, task_id="next", description="y", agent_name="steady")
            assert settled(stack, session_id, "next")["status"] == "completed"


class TestUsage:
    @pytest.mark.parametrize(
        ("command", "said"),
        [
            (["true", "{nothing}"], "Unknown placeholder {nothing}."),
            (["{description}"], "a task must not choose the program to run"),
            (["sh", "-c", "echo {description}"], "would let the task run anything"),
            (["no-such-program-at-all"], "Command not found: no-such-program-at-all"),
        ],
    )
    def test_an_unusable_command_is_refused(self, cli: CommandLine, command: list[str], said: str) -> None:
        assert said in cli.run("agent", "run", "--agent", "a", "--", *command, code=2).err

    def test_it_needs_a_relay_and_a_valid_key(self, cli: CommandLine) -> None:
        line = ["agent", "run", "--agent", new_id("agent"), "--", "true"]
        assert "does not support --backend json" in cli.run("--backend", "json", *line, code=2).err
        assert "API key" in cli.run(*line, code=4, environment={"API_KEY": "wrong"}).err

    def test_an_agent_is_registered_and_updated(self, stack: Stack, cli: CommandLine) -> None:
        name = new_id("agent")
        first = cli.run("agent", "register", name, "--type", "code", "--json").json
        assert (first["created"], first["type"], first["max_concurrent"]) == (True, "code", 1)
        changed = cli.run("agent", "register", name, "--max-concurrent", "4", "--capability", "python", "--json").json
        assert (changed["created"], changed["max_concurrent"], changed["capabilities"]) == (False, 4, ["python"])
        key = known_key(stack, "agent")
        assert "admin" in cli.run("agent", "register", name, code=4, environment={"API_KEY": key}).err

"""The usage of session-cli: help, usage errors, exit codes, completion, and the choice of the relay."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from cli.main import MODULES
from local.data_dir import Lock
from tests.support.processes.command_line import CommandLine
from tests.support.processes.stack import Stack, new_id
from tests.support.project import API_KEY


@pytest.fixture(scope="module", autouse=True)
def _session(stack: Stack) -> None:
    """Create a session, so that a list has rows."""
    stack.send("create_session", new_id("usage"), title="Usage")


class TestUsage:
    def test_help_and_version_need_no_relay(self, cli: CommandLine) -> None:
        nowhere = {"RELAY_URL": "", "API_KEY": ""}
        told = cli.run("--help", environment=nowhere).out
        assert all(f"  {name} " in told for name in MODULES)
        assert "Exit codes: 0 success, 1 failure, 2 invalid usage or settings, 3 not found" in told
        assert cli.run("--version", environment=nowhere).out.startswith("session-cli ")
        for name in MODULES:
            assert cli.run(name, "--help", environment=nowhere).out.startswith(f"Usage: session-cli {name} ")

    @pytest.mark.parametrize(
        "line",
        ["lst", "list --nope", "show", "show a b", "list --json nope", "list --limit -1", "export", "keys create x"],
    )
    def test_usage_errors_have_exit_code_2(self, cli: CommandLine, line: str) -> None:
        done = cli.run(*line.split(), code=2)
        assert done.out == ""
        assert "--help" in done.err or line.endswith("--json nope")

    @pytest.mark.parametrize("text", ["", "..", ".", "a/b", "a?b", "a b", "x" * 129])
    def test_an_invalid_id_is_refused_without_a_request(self, cli: CommandLine, text: str) -> None:
        for line in (["show", "--", text], ["delete", "--yes", "--", text], ["artifact", "--", "x", text]):
            assert "expected 1 to 128 letters" in cli.run(*line, code=2).err

    def test_a_misspelt_command_gets_a_hint(self, cli: CommandLine) -> None:
        assert "Did you mean 'export'" in cli.run("exprot", code=2).err

    def test_without_a_relay_or_store_it_says_how_to_start(self, cli: CommandLine, tmp_path: Path) -> None:
        nowhere = CommandLine(tmp_path)
        done = nowhere.run("list", code=2)
        assert all(way in done.err for way in ("make up", "session-cli login", "--backend json"))

    def test_a_wrong_key_is_reported_with_its_origin(self, cli: CommandLine) -> None:
        done = cli.run("list", code=4, environment={"API_KEY": "wrong"})
        assert done.out == ""
        assert done.err.endswith("The key came from API_KEY in the environment.\n")

    def test_an_unreachable_relay_has_exit_code_5(self, cli: CommandLine) -> None:
        done = cli.run("list", code=5, environment={"RELAY_URL": "http://127.0.0.1:9"})
        assert "connection refused" in done.err
        error = json.loads(cli.run("list", "--json", code=5, environment={"RELAY_URL": "http://127.0.0.1:9"}).err)[
            "error"
        ]
        assert (error["code"], error["retryable"]) == ("unavailable", True)

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_completion_scripts_load_in_shells(self, cli: CommandLine, shell: str) -> None:
        assert "_SESSION_CLI_COMPLETE" in cli.run("completion", shell).out

    def test_bash_completes_commands(self, cli: CommandLine) -> None:
        words = {"_SESSION_CLI_COMPLETE": "bash_complete", "COMP_WORDS": "session-cli sear", "COMP_CWORD": "1"}
        found = cli.launch(environment=words).out.split()
        assert found == ["plain,search", "plain,search-conversations", "plain,search-memories"]

    def test_global_options_may_follow_the_command(self, cli: CommandLine) -> None:
        assert cli.run("list", "-n", "1", "--backend", "http", "--no-pager").rows
        assert "needs a relay" in cli.run("keys", "list", "--backend", "json", code=2).err.lower()
        assert "STORAGE_BACKEND" in cli.run("list", code=2, environment={"STORAGE_BACKEND": "paper"}).err


class TestLogin:
    @pytest.fixture
    def newcomer(self, tmp_path: Path) -> CommandLine:
        """session-cli without any settings."""
        return CommandLine(tmp_path)

    def test_a_key_is_read_without_echo_checked_and_stored_privately(self, newcomer: CommandLine, stack: Stack) -> None:
        terminal = newcomer.terminal("login", stack.url, columns=200)
        terminal.wait_for("input is hidden")
        terminal.type(f"{API_KEY}\n")
        code, text = terminal.end()
        assert (code, API_KEY in text) == (0, False)
        path = newcomer.folder / ".config" / "session-relay" / "config.json"
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert newcomer.run("list", "-n", "1").rows
        assert newcomer.run("logout").err == f"Removed {path}.\n"
        newcomer.run("list", code=2)

    def test_a_key_is_read_from_stdin(self, newcomer: CommandLine, stack: Stack) -> None:
        done = newcomer.run("login", stack.url, input=f"{API_KEY}\n")
        assert API_KEY not in done.out + done.err
        assert newcomer.run("status").rows

    def test_a_wrong_key_is_not_stored(self, newcomer: CommandLine, stack: Stack) -> None:
        done = newcomer.run("login", stack.url, input="srk_wrong\n", code=4)
        assert "srk_wrong" not in done.err
        assert not (newcomer.folder / ".config").exists()
        newcomer.run("login", stack.url, input="\n", code=2)
        newcomer.run("login", "http://127.0.0.1:9", input="srk_x\n", code=5)
        newcomer.run("login", stack.url, API_KEY, code=2)

    def test_the_process_list_does_not_show_the_key(self, newcomer: CommandLine, stack: Stack) -> None:
        session_id = new_id("seen")
        stack.send("create_session", session_id, title="Seen")
        newcomer.run("login", stack.url, input=API_KEY)
        terminal = newcomer.launched_terminal("watch", session_id)
        terminal.wait_for("Ctrl-C")
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if os.access(path, os.R_OK)]
        running = [line for line in lines if session_id.encode() in line]
        terminal.interrupt()
        terminal.end()
        assert running
        assert not any(API_KEY.encode() in line for line in running)

    def test_a_local_stack_is_found_without_settings(self, newcomer: CommandLine, stack: Stack) -> None:
        folder = newcomer.folder / ".data"
        folder.mkdir()
        (folder / "stack.json").write_text(json.dumps({"pid": os.getpid(), "relay_url": stack.url}))
        (folder / "api_key").write_text(API_KEY)
        lock = Lock(folder / "stack.lock", subject="It")
        try:
            assert newcomer.run("create", "found").rows
        finally:
            lock.release()

"""`session-cli doctor --mcp`: which configured MCP servers respond, and why the others fail."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TextIO

import psutil
import pytest
from mcp import Client, StdioServerParameters, stdio_client

from cli.doctor import mcp_probe
from cli.doctor.findings import Finding
from cli.doctor.mcp_config import read_config
from cli.doctor.mcp_doctor import examine_servers
from models.errors import SettingsError
from tests.support.ports import free_port
from tests.support.processes.command_line import CommandLine
from tests.support.processes.mcp_servers import HOSTILE
from tests.support.processes.stack import Stack, new_id, wait_for
from tests.support.project import API_KEY, ROOT

SERVERS = ROOT / "tests" / "support" / "processes" / "mcp_servers.py"
WRITES = (
    "COMMIT; CREATE TABLE mine (a int)",
    "DELETE FROM sessions",
    "SET default_transaction_read_only = off; UPDATE sessions SET title = 'x'",
    "COMMIT; BEGIN READ WRITE; UPDATE sessions SET title = 'x'; COMMIT",
    "SET ROLE postgres",
    "SELECT * FROM api_keys",
)
SECRET = "s3cr3t-value-of-mine"
Configure = Callable[..., Path]


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """session-cli in a folder of its own, without environment variables."""
    return CommandLine(tmp_path)


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Write a configuration."""

    def write(**servers: Any) -> Path:
        path = tmp_path / ".mcp.json"
        path.write_text(json.dumps({"mcpServers": servers}))
        return path

    return write


def program(*arguments: str, **more: Any) -> dict[str, Any]:
    """Return the entry of one of the small servers."""
    return {"command": sys.executable, "args": [str(SERVERS), *arguments], **more}


def look(path: Path, **environment: str) -> dict[str, Finding]:
    """Return the findings, in this process, with consent to everything that the file names."""
    servers = read_config(path, environment)
    found = examine_servers(servers, {"PATH": os.environ["PATH"], **environment}, passed=environment)
    return {finding.check: finding for finding in found}


@contextmanager
def answering(status: int, headers: dict[str, str], *, body: bytes = b"") -> Iterator[str]:
    """Serve the same response to every request. Yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for _ in range(64 if body else 0):
                    self.wfile.write(body)
            except OSError:
                pass  # The client may leave early.

        def do_GET(self) -> None:
            self.do_POST()

        def log_message(self, format: str, *values: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class TestAnswers:
    def test_a_stdio_server_is_started_queried_and_ended(self, cli: CommandLine, configure: Configure) -> None:
        configure(database=program("sdk", env={"DSN": "${DSN}"}))
        done = cli.launch("doctor", "--mcp", "--yes", environment={"DSN": SECRET})
        assert done.rows == [
            {
                "check": "database",
                "state": "ok",
                "detail": "database 1.2.3 has 1 tool: execute_sql. execute_sql succeeded.",
                "remedy": "",
            }
        ]
        assert "No problems, 0 warnings." in done.err
        assert ".mcp.json" in done.err
        configure(database=program("may only read"))
        assert "✓" in cli.shown("doctor", "--mcp", "--yes")

    def test_an_http_server_is_queried(self, configure: Configure) -> None:
        port = free_port()
        server = subprocess.Popen([sys.executable, str(SERVERS), "http", str(port)], stderr=subprocess.DEVNULL)
        try:
            url = f"http://127.0.0.1:{port}/mcp"
            wait_for(lambda: is_open(port), what="listening")
            found = look(configure(http={"type": "http", "url": "${WHERE:-" + url + "}"}))["http"]
            assert (found.state, found.detail.endswith("execute_sql succeeded.")) == ("ok", True)
        finally:
            server.terminate()
            server.wait()

    def test_a_role_with_write_access_gets_a_warning(self, configure: Configure) -> None:
        found = look(configure(database=program("may write")))["database"]
        assert found.state == "warning"
        assert "can write" in found.detail
        assert "session-cli db reader" in found.remedy

    def test_a_refused_call_is_reported_without_secrets(self, cli: CommandLine, configure: Configure) -> None:
        configure(database=program("refused", env={"DSN": "${DSN}"}))
        done = cli.run("doctor", "--mcp", "-y", code=1, environment={"DSN": f"postgresql://u:{SECRET}@h/d"})
        found = done.findings["database"]
        assert found["state"] == "trouble"
        assert "execute_sql failed" in found["detail"]
        assert "permission denied for [hidden]" in found["detail"]
        assert SECRET not in done.out + done.err


class TestTroubles:
    def test_unset_variables_are_named(self, configure: Configure) -> None:
        path = configure(
            relay={"type": "http", "url": "http://127.0.0.1:9/mcp", "headers": {"X-API-Key": "${API_KEY}"}},
            both={"command": "x", "args": ["${ONE}"], "env": {"A": "${TWO}", "B": "${THREE:-}"}},
        )
        found = look(path, ONE="")
        assert found["relay"].detail == "API_KEY is not set."
        assert "session-cli keys create" in found["relay"].remedy
        assert found["both"].detail == "ONE and TWO are not set."

    def test_missing_programs_and_unreachable_servers_are_reported(
        self, cli: CommandLine, configure: Configure
    ) -> None:
        configure(
            node={"command": "npx", "args": ["-y", "x"]},
            away={"type": "http", "url": f"http://127.0.0.1:{free_port()}/mcp"},
            nowhere={"type": "http", "url": "https://nowhere.invalid/mcp", "headers": {"X": "${TOKEN}"}},
            ended={"command": "sh", "args": ["-c", "echo Error: no ${TOKEN} >&2; exit 3"]},
            wrong={"type": "carrier-pigeon", "url": "x"},
            empty={},
        )
        environment = {"TOKEN": SECRET, "PATH": bare_path(cli.folder)}
        done = cli.run("doctor", "--mcp", "--yes", "--pass-env", "TOKEN", code=1, environment=environment)
        found = done.findings
        assert found["node"]["detail"] == "npx is not installed."
        assert "Node.js" in found["node"]["remedy"]
        assert found["away"]["detail"].startswith("Cannot connect to http://127.0.0.1:")
        assert found["nowhere"]["detail"].startswith("Cannot connect to https://nowhere.invalid:")
        assert found["ended"]["detail"] == "The program exited without responding. Its stderr: Error: no [hidden]"
        assert "carrier-pigeon" in found["wrong"]["detail"]
        assert found["empty"]["detail"] == "No command is configured."
        assert {row["state"] for row in found.values()} == {"trouble"}
        assert all(row["remedy"] for row in found.values())
        assert SECRET not in done.out + done.err
        assert done.err.endswith("6 problems, 0 warnings.\n")

    @pytest.mark.parametrize(
        ("status", "headers", "told"),
        [
            (401, {}, "rejected the key or token (HTTP 401)"),
            (403, {}, "lacks permission (HTTP 403)"),
            (404, {}, "No MCP server at this URL (HTTP 404)"),
            (500, {}, "returned an error (HTTP 500)"),
            (200, {"Content-Type": "text/html"}, "Not an MCP server"),
            (302, {"Location": "http://127.0.0.1:9/other"}, "Not an MCP server"),
            (200, {"Content-Type": "application/json", "Content-Encoding": "gzip"}, "compressed"),
        ],
    )
    def test_invalid_responses_are_reported(
        self, configure: Configure, status: int, headers: dict[str, str], told: str
    ) -> None:
        with answering(status, headers) as url:
            sent = {"Authorization": "Bearer ${TOKEN}"}
            found = look(configure(server={"type": "http", "url": f"{url}/mcp", "headers": sent}), TOKEN=SECRET)
        assert told in found["server"].detail
        assert SECRET not in str(found)

    def test_an_endless_response_is_abandoned(self, configure: Configure) -> None:
        with answering(200, {"Content-Type": "application/json"}, body=b" " * 2**20) as url:
            found = look(configure(server={"type": "http", "url": f"{url}/mcp"}))
        assert "larger than 4 MiB" in found["server"].detail

    def test_a_slow_server_is_abandoned_and_ended(self, configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mcp_probe, "START_SECONDS", 0.5)
        found = look(configure(silent=program("silent")))["silent"]
        assert found.detail.startswith("The server did not start within")
        assert children() == []

    @pytest.mark.parametrize("kind", ["stubborn", "leaving"])
    def test_a_program_and_its_stubborn_children_are_ended(
        self, configure: Configure, tmp_path: Path, kind: str
    ) -> None:
        pids = tmp_path / "pids"
        assert look(configure(server=program(kind, str(pids))))["server"].state == "ok"
        wait_for(lambda: not any(map(is_running, pids_in(pids))), seconds=5, what="processes ended")

    def test_an_interrupt_leaves_no_process_behind(self, cli: CommandLine, configure: Configure) -> None:
        pids = cli.folder / "pids"
        configure(server=program("stubborn", str(pids)), silent=program("silent"))
        terminal = cli.terminal("doctor", "--mcp", "--yes")
        wait_for(lambda: pids.exists() and pids.read_text(), what="process started")
        terminal.interrupt()
        code, _ = terminal.end()
        assert code == 130
        wait_for(lambda: not any(map(is_running, pids_in(pids))), seconds=5, what="processes ended")

    def test_hostile_responses_neither_act_on_the_terminal_nor_fill_it(
        self, cli: CommandLine, configure: Configure
    ) -> None:
        configure(**{"hostile": program("hostile"), f"{HOSTILE}" + "n" * 500: {"type": HOSTILE}})
        done = cli.run("doctor", "--mcp", "--yes", code=1)
        assert "get_me failed" in done.findings["hostile"]["detail"]
        assert len(done.out + done.err) < 4_000
        assert not set(done.out + done.err) & set("\x1b\x07\u202e")
        shown = cli.shown("doctor", "--mcp", "--yes", code=1)
        assert "\x1b]0" not in shown
        assert "\x1b[2J" not in shown
        assert "\u202e" not in shown


class TestConfiguration:
    def test_the_file_is_searched_in_this_folder_then_in_the_project(
        self, cli: CommandLine, configure: Configure
    ) -> None:
        done = cli.run("doctor", "--mcp", "--json", "check,state", code=1)
        assert str(ROOT / "mcp-config.json") in done.err
        assert {"check": "github", "state": "trouble"} in done.json
        (cli.folder / "mcp-config.json").write_text('{"mcpServers": {"second": {}}}')
        assert cli.run("doctor", "--mcp", code=1).findings.keys() == {"second"}
        configure(first={})
        assert cli.run("doctor", "--mcp", code=1).findings.keys() == {"first"}
        assert cli.run("doctor", "--mcp", "--config", "mcp-config.json", code=1).findings.keys() == {"second"}

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"mcpServers": []}', "\x00", "[" * 10_000])
    def test_an_invalid_file_is_a_settings_error(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "wrong.json").write_text(text)
        with pytest.raises(SettingsError, match=r"wrong\.json"):
            read_config(tmp_path / "wrong.json", {})

    def test_wrong_settings_and_usage_have_their_exit_code(self, cli: CommandLine) -> None:
        assert "none.json was not found" in cli.run("doctor", "--mcp", "--config", "none.json", code=2).err
        assert "--mcp" in cli.run("doctor", "--config", "wrong.json", code=2).err

    def test_strange_entries_are_reported_and_harmless(self, configure: Configure) -> None:
        strange: tuple[Any, ...] = (
            {"args": 5, "env": [], "command": {}},
            [],
            None,
            "x",
            {"url": "http://[", "type": "http"},
        )
        for server in read_config(configure(**{str(number): entry for number, entry in enumerate(strange)}), {}):
            assert server.fault

    def test_a_file_with_too_many_servers_is_refused(self, configure: Configure) -> None:
        with pytest.raises(SettingsError):
            read_config(configure(**{str(number): {} for number in range(100)}), {})


class TestProjectConfiguration:
    def test_each_server_is_configured_once_with_pinned_versions(self) -> None:
        servers = {server.name: server for server in read_config(ROOT / "mcp-config.json", {})}
        assert {name: server.lacks for name, server in servers.items()} == {
            "session-relay": ("API_KEY",),
            "postgres": ("READER_DATABASE_URL",),
            "github": ("GITHUB_TOKEN",),
            "filesystem": ("MCP_FILES_DIR",),
        }
        assert servers["session-relay"].url == "http://127.0.0.1:8000/mcp"
        for name in ("postgres", "filesystem"):
            [package] = [word for word in servers[name].arguments if word.startswith("@")]
            assert package.rpartition("@")[2].replace(".", "").isdigit()
            assert "--ignore-scripts" in servers[name].arguments

    def test_the_relay_responds_at_its_address(self, cli: CommandLine, stack: Stack) -> None:
        here = {"RELAY_URL": stack.url}
        stack.send("create_session", new_id("doctor"), title="Walk")
        right = cli.run("doctor", "--mcp", code=1, environment={**here, "API_KEY": API_KEY}).findings
        assert right["session-relay"]["state"] == "ok"
        assert "resume_bundle" in right["session-relay"]["detail"]
        assert right["session-relay"]["detail"].endswith("list_sessions succeeded.")
        assert right["github"]["detail"] == "GITHUB_TOKEN is not set."
        wrong = cli.run("doctor", "--mcp", code=1, environment={**here, "API_KEY": SECRET}).findings
        assert "(HTTP 401)" in wrong["session-relay"]["detail"]

    def test_the_server_for_postgres_reads_as_the_reader_and_cannot_write(
        self, cli: CommandLine, stack: Stack, reader: dict[str, Any]
    ) -> None:
        if shutil.which("npx") is None:
            pytest.skip("Node is not installed, so the MCP server for Postgres cannot be tried.")
        home = {"HOME": os.environ["HOME"]}  # The cache of npm.
        environment = {"READER_DATABASE_URL": reader["url"], "READER_DATABASE_SOCKET": reader["socket"] or "", **home}
        found = cli.run("doctor", "--mcp", code=1, environment=environment).findings["postgres"]
        if "npm error" in found["detail"] or "did not start" in found["detail"]:
            pytest.skip(f"The npm registry cannot be reached, or does not have it: {found['detail']}")
        assert (found["state"], found["detail"].endswith("execute_sql succeeded.")) == ("ok", True), found

        session_id = new_id("kept")
        stack.send("create_session", session_id, title="Kept")
        [server] = [
            server for server in read_config(ROOT / "mcp-config.json", environment) if server.name == "postgres"
        ]

        variables = {**server.variables, **home}
        parameters = StdioServerParameters(command=server.command, args=server.arguments, env=variables)

        async def story(nowhere: TextIO) -> None:
            async with Client(stdio_client(parameters, errlog=nowhere)) as client:
                read = f"SELECT title FROM sessions WHERE session_id = '{session_id}'"
                assert "Kept" in str((await client.call_tool("execute_sql", {"sql": read})).content)
                for attempt in WRITES:
                    assert (await client.call_tool("execute_sql", {"sql": attempt})).is_error, attempt

        with Path(os.devnull).open("w") as nowhere:
            asyncio.run(story(nowhere))
        assert stack.client.get(f"/v1/sessions/{session_id}").json()["title"] == "Kept"

    @pytest.fixture
    def reader(self, cli: CommandLine, stack: Stack) -> Iterator[dict[str, Any]]:
        """A role of its own, created and dropped by the command."""
        here = {"DATABASE_URL": stack.environment["DATABASE_URL"]}
        name = new_id("reader")
        done = cli.run("db", "reader", "--role", name, "--json", environment=here)
        assert "not be shown again" in done.err
        assert done.json["role"] == name
        yield done.json
        dropped = cli.run("db", "reader", "--role", name, "--drop", environment=here)
        assert dropped.err == f"Dropped role {name}.\n"


def is_open(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        return True


def pids_in(file: Path) -> list[int]:
    return [int(word) for word in file.read_text().split()]


def is_running(pid: int) -> bool:
    """Return whether a process runs and is not a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def children() -> list[psutil.Process]:
    """Return the small servers that this process has started."""
    return [child for child in psutil.Process().children(recursive=True) if str(SERVERS) in child.cmdline()]


def bare_path(folder: Path) -> str:
    """Create a PATH with only a shell."""
    programs = folder / "programs"
    programs.mkdir()
    (programs / "sh").symlink_to(shutil.which("sh") or "/bin/sh")
    return str(programs)

"""session-cli in a directory that somebody else has filled: it runs and calls nothing of it without consent, and sends
no key to an address that it names."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cli.doctor.findings import Finding
from cli.doctor.mcp_config import read_config
from cli.doctor.mcp_doctor import examine_servers
from tests.support.processes.command_line import CommandLine
from tests.support.project import ROOT

SECRET = "s3cr3t-value-of-mine"


class Listener:
    """A server that records its requests, and redirects to another one if given."""

    def __init__(self, *, leads_to: str = "") -> None:
        self.heard: list[str] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                listener.heard.append(f"{self.requestline}\n{self.headers}\n{body.decode()}")
                self.send_response(307 if leads_to else 404)
                if leads_to:
                    self.send_header("Location", leads_to)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_GET(self) -> None:
                self.do_POST()

            def log_message(self, format: str, *values: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    """The address that the directory names."""
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture
def cli(tmp_path: Path) -> CommandLine:
    """session-cli in the directory, with a home elsewhere and a key in the environment."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    return CommandLine(folder, HOME=str(tmp_path / "home"), API_KEY=SECRET)


def name_servers(folder: Path, file: str = ".mcp.json", **servers: Any) -> Path:
    path = folder / file
    path.write_text(json.dumps({"mcpServers": servers}))
    return path


def agreed(path: Path, **environment: str) -> dict[str, Finding]:
    """Return the findings with consent to run and call everything that the file names."""
    found = examine_servers(read_config(path, environment), {"PATH": os.environ["PATH"], **environment})
    return {finding.check: finding for finding in found}


@contextmanager
def claiming_to_run(folder: Path, url: str, **files: str) -> Iterator[None]:
    """A data folder that claims to belong to a running stack, with a held lock."""
    data = folder / ".data"
    data.mkdir()
    (data / "stack.json").write_text(json.dumps({"pid": os.getpid(), "relay_url": url}))
    for name, text in files.items():
        (data / name).write_text(text)
    with (data / "stack.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class TestServersThatItNames:
    def test_nothing_is_run_or_called_without_consent(self, cli: CommandLine, listener: Listener) -> None:
        created = cli.folder / "created"
        for file, arguments in ((".mcp.json", ()), ("mcp-config.json", ("--config", "mcp-config.json"))):
            name_servers(
                cli.folder,
                file,
                program={"command": "touch", "args": [str(created)]},
                address={"type": "http", "url": f"{listener.url}/mcp", "headers": {"X-API-Key": "${API_KEY}"}},
            )
            refused = cli.launch("doctor", "--mcp", *arguments, code=2).err
            assert "Cannot prompt without a terminal: pass --yes" in refused
        assert not created.exists()
        assert listener.heard == []

    def test_a_terminal_shows_what_would_be_run_and_no_runs_nothing(self, cli: CommandLine, listener: Listener) -> None:
        created = cli.folder / "created"
        name_servers(
            cli.folder,
            program={"command": "touch", "args": [str(created), "a b\n\x1b[8mhidden"], "env": {"LD_PRELOAD": "x.so"}},
            address={"type": "http", "url": f"{listener.url}/${{API_KEY}}", "headers": {"X-API-Key": "${API_KEY}"}},
        )
        terminal = cli.launched_terminal("doctor", "--mcp", columns=300)
        shown = " ".join(terminal.wait_for("[y/N]").split())
        assert f"program: run touch {created} 'a b \\u001b[8mhidden' with the variables LD_PRELOAD=x.so" in shown
        assert f"address: call {listener.url}/${{API_KEY}}" in shown
        assert "with the headers X-API-Key='${API_KEY}'" in shown
        assert SECRET not in shown.replace(f"{listener.url}/{SECRET}", "")
        terminal.type("n\n")
        code, _ = terminal.end()
        assert code == 1
        assert not created.exists()
        assert listener.heard == []

    def test_yes_runs_the_servers(self, cli: CommandLine) -> None:
        created = cli.folder / "created"
        name_servers(cli.folder, program={"command": "touch", "args": [str(created)]})
        terminal = cli.launched_terminal("doctor", "--mcp")
        terminal.wait_for("[y/N]")
        terminal.type("y\n")
        assert terminal.end()[0] == 1
        assert created.exists()

    @pytest.mark.parametrize("address", ["http://HOST/mcp", "http://HOST/mcp?k=${API_KEY}", "http://${WHERE}@HOST/mcp"])
    def test_yes_sends_no_key_to_an_address_that_it_names(
        self, cli: CommandLine, listener: Listener, address: str
    ) -> None:
        url = address.replace("HOST", listener.url.removeprefix("http://"))
        headers = {"X-API-Key": "${API_KEY}"} if "k=" not in url else {}
        path = name_servers(cli.folder, address={"type": "http", "url": url, "headers": headers})
        found = agreed(path, RELAY_URL="https://relay.example", WHERE="relay.example", API_KEY=SECRET)["address"]
        assert "would send API_KEY" in found.detail
        assert "--pass-env API_KEY" in found.remedy
        assert listener.heard == []

    def test_a_key_is_sent_when_named_and_to_the_address_it_belongs_to(
        self, cli: CommandLine, listener: Listener
    ) -> None:
        path = name_servers(
            cli.folder, address={"type": "http", "url": f"{listener.url}/mcp", "headers": {"X-API-Key": "${API_KEY}"}}
        )
        agreed(path, RELAY_URL=listener.url, API_KEY=SECRET)
        assert SECRET in "".join(listener.heard)
        listener.heard.clear()
        cli.launch("doctor", "--mcp", "--yes", "--pass-env", "API_KEY", code=1)
        assert SECRET in "".join(listener.heard)

    def test_a_key_does_not_follow_a_redirect_to_another_host(self, cli: CommandLine, listener: Listener) -> None:
        leading = Listener(leads_to=f"{listener.url}/mcp")
        try:
            sent = {"type": "http", "url": f"{leading.url}/mcp", "headers": {"X-API-Key": "${API_KEY}"}}
            name_servers(cli.folder, address=sent)
            cli.run("doctor", "--mcp", "--yes", "--pass-env", "API_KEY", code=1)
            assert leading.heard
            assert "redirects to" in cli.run("list", code=5, environment={"RELAY_URL": leading.url}).err
        finally:
            leading.close()
        assert SECRET not in "".join(listener.heard)

    def test_plain_http_gets_no_key_unless_allowed(self, cli: CommandLine) -> None:
        path = name_servers(
            cli.folder,
            header={"type": "http", "url": "http://relay.invalid/mcp", "headers": {"X-API-Key": "in-the-file"}},
            query={"type": "http", "url": "http://relay.invalid/mcp?key=in-the-file"},
        )
        found = agreed(path).values()
        assert all("is not encrypted" in row.detail and "PLAIN_HTTP_HOSTS" in row.remedy for row in found)
        found = agreed(path, PLAIN_HTTP_HOSTS="x, Relay.invalid").values()
        assert all("Cannot connect to" in row.detail for row in found)

    def test_an_entry_too_long_to_review_is_not_run(self, cli: CommandLine) -> None:
        created = cli.folder / "created"
        path = name_servers(cli.folder, long={"command": "sh", "args": ["-c", " " * 2_000 + f"touch {created}"]})
        assert "too long to review" in agreed(path)["long"].detail
        assert not created.exists()

    def test_the_own_file_of_the_program_needs_no_consent(self, cli: CommandLine) -> None:
        environment = {"PATH": "/usr/bin:/bin", "API_KEY": ""}
        done = cli.run("doctor", "--mcp", "--config", str(ROOT / "mcp-config.json"), code=1, environment=environment)
        assert done.findings["session-relay"]["detail"] == "API_KEY is not set."


class TestStackThatItNames:
    def test_the_key_of_the_environment_is_not_sent_to_its_address(self, cli: CommandLine, listener: Listener) -> None:
        with claiming_to_run(cli.folder, listener.url, api_key="of-the-folder"):
            refused = cli.run("list", code=2).err
            assert f"the key is not sent to {listener.url}" in refused
            assert "Set RELAY_URL too, or unset API_KEY." in refused
            assert SECRET not in refused
            (cli.folder / ".data" / "api_key").unlink()
            assert ".data contains no key" in cli.run("list", code=2).err
        assert listener.heard == []

    def test_a_linked_key_from_elsewhere_is_not_sent(self, cli: CommandLine, listener: Listener) -> None:
        key = cli.folder.parent / "key-of-mine"
        key.write_text(SECRET)
        with claiming_to_run(cli.folder, listener.url):
            (cli.folder / ".data" / "api_key").symlink_to(key)
            assert "Cannot read" in cli.run("list", code=2, environment={"API_KEY": ""}).err
        assert listener.heard == []

    def test_it_is_used_only_while_a_stack_of_this_user_holds_its_lock(
        self, cli: CommandLine, listener: Listener
    ) -> None:
        without_key = {"API_KEY": ""}
        with claiming_to_run(cli.folder, listener.url, api_key="of-the-folder"):
            cli.launch("list", code=5, environment=without_key)
            assert "of-the-folder" in listener.heard.pop()
            if os.geteuid() == 0:
                os.chown(cli.folder / ".data" / "stack.json", 12_345, 12_345)
                told = cli.run("list", code=2, environment=without_key).err
                assert "you do not own it" in told
                os.chown(cli.folder / ".data" / "stack.json", 0, 0)
        assert "No relay is configured" in cli.run("list", code=2, environment=without_key).err
        assert listener.heard == []

    def test_its_database_is_not_started_without_consent(self, cli: CommandLine) -> None:
        created = cli.folder / "created"
        data = cli.folder / ".data" / "postgres" / "data"
        data.mkdir(parents=True)
        (data / "PG_VERSION").write_text("18")
        (data / "postgresql.conf").write_text(f"ssl = on\nssl_passphrase_command = 'touch {created}'")
        refused = cli.run("db", "check", code=2, environment={"API_KEY": ""}).err
        assert "was not started" in refused
        assert "DATA_DIR" in refused
        assert not created.exists()


class TestPlainHttp:
    def test_an_address_without_a_scheme_means_https(self, cli: CommandLine) -> None:
        assert "https://relay.invalid" in cli.run("login", "relay.invalid", input=SECRET, code=5).err

    def test_no_key_is_sent_in_plain_text(self, cli: CommandLine) -> None:
        plain = {"RELAY_URL": "http://relay.invalid:8000"}
        for line in (["list"], ["agent", "run", "--agent", "a", "--", "true"], ["status"]):
            refused = cli.run(*line, code=2, environment=plain).err
            assert "http://relay.invalid:8000 is not encrypted: anybody on the network could read the key" in refused
            assert "PLAIN_HTTP_HOSTS=relay.invalid" in refused
        assert "is not encrypted" in cli.run("login", "http://relay.invalid:8000", input=SECRET, code=2).err
        assert "is not encrypted" in cli.run("doctor", code=1, environment=plain).out

    def test_plain_http_can_be_allowed(self, cli: CommandLine) -> None:
        insisting = {"RELAY_URL": "http://relay.invalid:8000", "PLAIN_HTTP_HOSTS": "relay.invalid"}
        assert "cannot be resolved" in cli.run("list", code=5, environment=insisting).err

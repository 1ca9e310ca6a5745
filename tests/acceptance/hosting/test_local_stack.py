"""The local stack: its servers, the cleanup after a killed predecessor, and a whole run from start to Ctrl-C."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg2
import pytest
from redis import Redis

from local.servers import run_as
from local.servers.embedded import EmbeddedServer, start_postgres, start_valkey
from local.servers.postgres import schema_revision
from models.errors import SettingsError
from models.process.supervision import Child
from models.settings import Settings
from models.tables import SCHEMA_REVISION
from tests.support.ports import free_port
from tests.support.processes.fork_server import ForkedRoom
from tests.support.processes.stack import new_id, wait_for
from tests.support.project import IS_LONG, ROOT
from tests.support.servers import copy_migrated_data, start_migrated_postgres

START_SECONDS = 90
MOST_LINES = 22
"""The maximum up to the first command to paste. An installation before them adds two."""
ORPHANS = """
import os, sys
from pathlib import Path
from local.servers.embedded import start_postgres, start_valkey
servers = [start_postgres(Path(sys.argv[1])), start_valkey(Path(sys.argv[1]))]
print(*[server.pid for server in servers], flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """The path of a new data folder, in a folder that the servers' own user can enter."""
    parent = Path(tempfile.mkdtemp(prefix="session-relay-tests-"))
    parent.chmod(0o755)
    yield parent / "data"
    shutil.rmtree(parent, ignore_errors=True)


@pytest.fixture
def run(data_dir: Path) -> Iterator[Callable[..., LocalStack]]:
    """Starts stacks, and ends them with the test."""
    stacks: list[LocalStack] = []

    def start(folder: Path = data_dir, **environment: str) -> LocalStack:
        stacks.append(LocalStack(folder, **environment))
        return stacks[-1]

    yield start
    for stack in stacks:
        stack.kill()
    for folder in {stack.data_dir for stack in stacks}:
        for process in processes_of(folder):
            with suppress(psutil.NoSuchProcess):
                process.kill()


class LocalStack:
    """`python -m local` on a data folder, with its output."""

    def __init__(self, data_dir: Path, **environment: str) -> None:
        self.data_dir = data_dir
        self.port = int(environment.get("PORT") or free_port())
        passed = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
        ports = {"PORT": str(self.port), "DASHBOARD_PORT": str(free_port())}
        given = {"PYTHONPATH": str(ROOT), "DATA_DIR": str(data_dir), "WORKERS": "1", "RELAY_PROCESSES": "1", **ports}
        given["EMBEDDINGS"] = "off"  # Each embedder would load its model, for seconds.
        self._log = data_dir.parent / f"{new_id('output')}.log"
        self._running = ForkedRoom(
            Child(
                name="local",
                command=(sys.executable, "-m", "local"),
                environment=passed | given | environment,
                folder=data_dir.parent,
                log=self._log,
            )
        )

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def output(self) -> str:
        return self._log.read_text()

    @property
    def description(self) -> dict[str, Any]:
        """Return the description that it writes for other tools."""
        described: dict[str, Any] = json.loads((self.data_dir / "stack.json").read_text())
        return described

    def wait_until_ready(self) -> LocalStack:
        def ready() -> bool:
            if self._running.ended():
                pytest.fail(self.output)
            return "Press Ctrl-C to stop" in self.output

        wait_for(ready, seconds=START_SECONDS, what="running")
        return self

    def wait_for_exit(self) -> int:
        wait_for(self._running.ended, seconds=60, what="ended")
        assert self._running.exit_code is not None
        return self._running.exit_code

    def press_ctrl_c(self) -> None:
        os.killpg(self.pid, signal.SIGINT)

    def child(self, name: str) -> psutil.Process | None:
        """Return the child that runs the binary or module of that name."""
        for child in psutil.Process(self.pid).children():
            with suppress(psutil.Error):  # The process may be ending.
                if name in (child.name(), *child.cmdline()[-1:]):
                    return child
        return None

    def send(self, *, command: str, **fields: object) -> dict[str, Any]:
        """Send a command with the stack's own key. Returns the response, which must be a success."""
        key = (self.data_dir / "api_key").read_text().strip()
        body = {"command": command, "session_id": "first-steps", "sync": True, **fields}
        answer = httpx.post(
            f"http://127.0.0.1:{self.port}/v1/webhook", json=body, headers={"X-API-Key": key}, timeout=60
        )
        assert answer.status_code == 200, answer.text
        answered: dict[str, Any] = answer.json()
        return answered

    def remembers(self) -> bool:
        """Return whether the memory of the first curl command is still stored."""
        memory = self.send(command="retrieve_memory", data={"key": "database"})["data"]["memory"]
        return bool(memory["content"] == "We picked Postgres as database.")

    def kill(self) -> None:
        self._running.kill()


def processes_of(data_dir: Path) -> list[psutil.Process]:
    """Return all living processes of the stack on that folder, by command line or working directory."""
    return [process for process in psutil.process_iter() if belongs(process, data_dir)]


def belongs(process: psutil.Process, data_dir: Path) -> bool:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        texts = [process.cwd(), *process.cmdline(), *process.environ().values()]
    except (psutil.Error, OSError):
        return False
    return process.pid != os.getpid() and any(str(data_dir) in text for text in texts)


def paste(output: str) -> list[dict[str, Any]]:
    """Run the printed curl commands. Returns their responses."""
    answers = []
    for command in re.findall(r"^curl .*?\}'$", output, re.DOTALL | re.MULTILINE):
        words = shlex.split(command.replace("\\\n", ""))
        url = next(word for word in words if word.startswith("http"))
        options = [(option, value) for option, value in pairwise(words) if option.startswith("-")]
        headers = dict(value.split(": ") for option, value in options if option == "-H")
        answer = httpx.post(url, content=dict(options)["-d"], headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        answers.append(answer.json())
    return answers


def query(postgres: EmbeddedServer, statement: str) -> list[tuple[Any, ...]]:
    connection = psycopg2.connect(postgres.url)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()


def test_postgres_keeps_its_data_when_killed_or_stopped_and_parses_unicode_words(data_dir: Path) -> None:
    postgres = start_migrated_postgres(data_dir, settings={})
    try:
        query(postgres, "CREATE TABLE kept (word text)")
        query(postgres, "INSERT INTO kept VALUES ('killed')")
        first = postgres.pid
        postgres.kill()
        postgres.restart()
        assert postgres.pid != first
        query(postgres, "INSERT INTO kept VALUES ('stopped')")
        postgres.pause()
        with pytest.raises(psycopg2.OperationalError):
            query(postgres, "SELECT 1")
        assert schema_revision(postgres.url) is None
        postgres.restart()
        assert schema_revision(postgres.url) == SCHEMA_REVISION
        assert query(postgres, "SELECT word FROM kept ORDER BY word") == [("killed",), ("stopped",)]
        assert query(postgres, "SELECT current_setting('fsync'), getdatabaseencoding()") == [("on", "UTF8")]
        [(words,)] = query(postgres, "SELECT to_tsvector('simple', 'Die “Wärmepumpe”—läuft。好！')::text")
        assert words == "'die':1 'läuft':3 'wärmepumpe':2 '好':4"
    finally:
        postgres.stop()
    assert processes_of(data_dir) == []


def test_valkey_loses_no_confirmed_write_when_killed(data_dir: Path) -> None:
    valkey = start_valkey(data_dir)
    try:
        with Redis.from_url(valkey.url) as client:
            client.set("answered", "yes")
            valkey.kill()
        valkey.restart()
        with Redis.from_url(valkey.url, decode_responses=True) as client:
            assert client.get("answered") == "yes"
            names = ("appendonly", "appendfsync", "maxmemory-policy", "save", "port")
            assert client.config_get(*names) == dict(zip(names, ("yes", "always", "noeviction", "", "0"), strict=True))
    finally:
        valkey.stop()
    assert processes_of(data_dir) == []


def test_servers_on_two_data_folders_run_side_by_side_in_folders_that_only_the_owner_can_enter(data_dir: Path) -> None:
    # Paths may be long.
    folders = [data_dir, data_dir.with_name("a rather deep, comma'd and spaced folder") / ("x" * 100)]
    servers: list[EmbeddedServer] = []
    try:
        for folder in folders:
            servers += [start_postgres(folder, settings={"fsync": "off"}), start_valkey(folder)]
        assert len({server.url for server in servers}) == 4
        for postgres, name in zip(servers[::2], ("first", "second"), strict=True):
            assert schema_revision(postgres.url) is None
            query(postgres, f"CREATE TABLE {name} ()")
            assert query(postgres, "SELECT relname FROM pg_stat_user_tables") == [(name,)]
            assert psutil.Process(postgres.pid).uids().effective != 0
        for folder, name in product(folders, ("postgres", "valkey", "logs")):
            assert (folder / name).stat().st_mode & 0o077 == 0, f"Others can enter {folder / name}."
    finally:
        for server in servers:
            server.stop()


def test_a_data_folder_in_use_is_refused_with_the_pid_of_its_stack(data_dir: Path) -> None:
    valkey = start_valkey(data_dir)
    try:
        with pytest.raises(SettingsError, match=rf"in use by another process \(pid {os.getpid()}\)"):
            start_valkey(data_dir)
        with Redis.from_url(valkey.url) as client:
            assert client.ping()
    finally:
        valkey.stop()
    start_valkey(data_dir).stop()


def test_servers_of_a_killed_stack_are_ended_by_the_next_start_and_keep_their_data(data_dir: Path) -> None:
    copy_migrated_data(data_dir)
    killed = subprocess.run(
        [sys.executable, "-c", ORPHANS, str(data_dir)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    orphans = [psutil.Process(int(pid)) for pid in killed.stdout.split()]
    assert [orphan.name() for orphan in orphans] == ["postgres", "valkey-server"]
    version = (data_dir / "postgres" / "data" / "PG_VERSION").stat().st_mtime
    servers = [start_postgres(data_dir), start_valkey(data_dir)]
    try:
        assert not any(belongs(orphan, data_dir) for orphan in orphans)
        assert query(servers[0], "SELECT 1") == [(1,)]
        assert (data_dir / "postgres" / "data" / "PG_VERSION").stat().st_mtime == version
    finally:
        for server in servers:
            server.stop()


def test_a_stack_prints_what_works_outlives_its_processes_and_the_next_one_cleans_up_when_it_is_killed(
    run: Callable[..., LocalStack],
) -> None:
    stack = prints_commands_that_work(run)
    outlives_its_processes(stack)
    is_cleaned_up_when_killed(run, stack)


def prints_commands_that_work(run: Callable[..., LocalStack]) -> LocalStack:
    """Start a stack on new data with the default settings, and use what it prints."""
    with listener_on_the_dashboards_port() as port:
        # Empty counts as unset.
        stack = run(DASHBOARD_PORT="", EMBEDDINGS="").wait_until_ready()
    assert f" since {port} is in use) ... ready (" in stack.output
    lines = stack.output.splitlines()
    assert next(number for number, line in enumerate(lines, start=1) if line.startswith("curl ")) <= MOST_LINES
    assert f"Page       http://127.0.0.1:{stack.port} " in stack.output
    search = re.search(r"RELAY_URL=\S+ API_KEY=\S+ bin/session-cli search", stack.output)
    assert search, "session-cli does not find a stack in a folder of its own."
    stored, read = paste(stack.output)
    assert stored["status"] == "success"
    assert read["data"]["memory"]["content"] == "We picked Postgres as database."
    described = stack.description
    assert described["relay_url"] == f"http://127.0.0.1:{stack.port}"
    assert not described["dashboard_url"].endswith(f":{port}")
    password = (stack.data_dir / "dashboard_password").read_text().strip()
    assert httpx.get(described["dashboard_url"]).status_code == 401
    assert "worker" in httpx.get(f"{described['dashboard_url']}/0/view/workers", auth=("admin", password)).text
    for name in ("api_key", "dashboard_password", "stack.json"):
        assert (stack.data_dir / name).stat().st_mode & 0o077 == 0, name
    arguments = " ".join(word for process in processes_of(stack.data_dir) for word in process.cmdline())
    assert (stack.data_dir / "api_key").read_text().strip() not in arguments
    return stack


@contextmanager
def listener_on_the_dashboards_port() -> Iterator[int]:
    """Listens on the dashboard's default port, unless another program does."""
    port = Settings().dashboard_port
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
            listener.listen()
        except OSError as error:
            assert error.errno == errno.EADDRINUSE
        yield port


def outlives_its_processes(stack: LocalStack) -> None:
    names = ("postgres", "valkey-server", "api", *(("worker", "worker.dashboard") if IS_LONG else ()))
    for name in names:
        child = stack.child(name)
        assert child, name
        child.kill()
        wait_for(lambda name=name, old=child: stack.child(name) not in (None, old), what=f"{name} restarted")  # type: ignore[misc]
    wait_for(stack.remembers, seconds=60, what="memory readable")
    dashboard_url = stack.description["dashboard_url"]
    wait_for(lambda: httpx.get(dashboard_url).status_code == 401, what="password prompt")
    assert stack.output.count("was ended by SIGKILL; restarting") == len(names)


def is_cleaned_up_when_killed(run: Callable[..., LocalStack], killed: LocalStack) -> None:
    servers = [killed.child(name) for name in ("postgres", "valkey-server")]
    killed.kill()
    stack = run(PORT=str(killed.port)).wait_until_ready()
    assert "of a killed stack" in stack.output
    assert not any(server and belongs(server, stack.data_dir) for server in servers)
    assert stack.remembers()

    worker = stack.child("worker")
    assert worker
    worker.suspend()
    stack.press_ctrl_c()
    wait_for(lambda: "Stopping." in stack.output, what="stopping")
    # A second one ends everything at once.
    stack.press_ctrl_c()
    assert stack.wait_for_exit() == 0, stack.output
    assert processes_of(stack.data_dir) == []
    assert not (stack.data_dir / "stack.json").exists()


def test_two_stacks_run_side_by_side_but_not_on_one_folder_or_port(
    run: Callable[..., LocalStack], data_dir: Path, own_database_url: str, redis_url: str, redis: Redis
) -> None:
    copy_migrated_data(data_dir)
    other = data_dir.with_name("elsewhere") / "other"
    other.parent.mkdir()
    first = run().wait_until_ready()
    same_folder = run()
    assert same_folder.wait_for_exit() == 1
    assert f"already runs at http://127.0.0.1:{first.port} (pid {first.pid})" in same_folder.output
    same_port = run(other, PORT=str(first.port))
    assert same_port.wait_for_exit() == 1
    assert f"Port {first.port} on 127.0.0.1 is in use by another program. Set another PORT." in same_port.output
    assert processes_of(other) == []
    paste(first.output)
    uses_given_servers_and_settings(run, other, own_database_url, redis_url)
    assert first.remembers()
    require_stop_without(first, first.data_dir / "valkey" / "appendonlydir")


def uses_given_servers_and_settings(
    run: Callable[..., LocalStack], data_dir: Path, database_url: str, redis_url: str
) -> None:
    """Run a stack on empty servers given by the environment, with settings of the environment and the .env file."""
    lines = ["# settings", 'export API_KEY="from-the-file"', "DASHBOARD_PASSWORD=from-the-file"]
    (data_dir.parent / ".env").write_text("\n".join(lines))
    given = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "DASHBOARD_PASSWORD": "from-the-environment"}
    stack = run(data_dir, **given).wait_until_ready()
    assert "from-the-file" in stack.output
    assert "password: from-the-environment" in stack.output
    assert stack.description["database_url"] == database_url
    assert stack.description["redis_url"] == redis_url
    for name in ("postgres", "valkey", "api_key"):
        assert not (data_dir / name).exists()
    stored, _ = paste(stack.output)
    assert stored["data"]["results"][0]["data"]["created"] is True, "It has the session of the other stack."
    stack.press_ctrl_c()
    assert stack.wait_for_exit() == 0, stack.output
    assert processes_of(data_dir) == []
    assert not (data_dir / "stack.json").exists()


@pytest.mark.torture
def test_a_stack_stops_when_its_data_folder_is_deleted(run: Callable[..., LocalStack], data_dir: Path) -> None:
    copy_migrated_data(data_dir)
    stack = run().wait_until_ready()
    require_stop_without(stack, stack.data_dir)


def require_stop_without(stack: LocalStack, folder: Path) -> None:
    """Delete a folder of a running stack, which must take no more webhooks then, and say why it stops."""
    url = stack.description["relay_url"]
    headers = {"X-API-Key": (stack.data_dir / "api_key").read_text().strip()}
    body = {"command": "create_session", "data": {"title": "Kept"}}
    assert httpx.post(f"{url}/v1/webhook", json=body, headers=headers).status_code == 202
    shutil.rmtree(folder, ignore_errors=True)

    def refused() -> bool:
        try:
            return httpx.post(f"{url}/v1/webhook", json=body, headers=headers).status_code != 202
        except httpx.TransportError:
            return True

    wait_for(refused, seconds=30, what="refused")
    assert stack.wait_for_exit() == 1
    [told] = re.findall(r"(\S+) was deleted or replaced while the stack was running", stack.output)
    assert told == str(folder) if folder != stack.data_dir else Path(told).is_relative_to(folder)
    assert "Traceback" not in stack.output


@pytest.mark.skipif(os.geteuid() != 0, reason="An ordinary user runs Postgres as itself.")
def test_as_root_no_other_folder_is_opened_for_postgres(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = data_dir.with_name("state")
    closed = data_dir.with_name("closed")
    closed.mkdir(mode=0o700)
    monkeypatch.setattr(run_as, "STATE_FOLDER", state)
    for _ in range(2):
        postgres = start_postgres(closed / "data", settings={"fsync": "off"})
        try:
            query(postgres, "CREATE TABLE IF NOT EXISTS kept ()")
            assert psutil.Process(postgres.pid).uids().effective != 0
            assert psutil.Process(postgres.pid).cwd().startswith(str(state))
        finally:
            postgres.stop()
    assert closed.stat().st_mode & 0o777 == 0o700
    assert (closed / "data" / "postgres").readlink().is_relative_to(state)
    assert (closed / "data" / "postgres").stat().st_mode & 0o777 == 0o700

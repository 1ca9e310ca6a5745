"""Relay, worker and dashboard as one service on given servers, as `python -m local.single_service` runs them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from local.servers.embedded import EmbeddedServer
from models.process.supervision import Child, ChildProcess
from tests.support.deployment import DEPLOY
from tests.support.logs import require_no_bug, require_no_secret
from tests.support.ports import free_port
from tests.support.processes.fork_server import ForkedRoom
from tests.support.processes.stack import START_SECONDS, Payload, envelope, new_id, wait_for
from tests.support.project import API_KEY, IS_LONG, ROOT
from tests.support.servers import new_database, running_valkey

RAILWAY = json.loads((DEPLOY / "railway" / "single-service.json").read_text())["deploy"]


class SingleService:
    """The service, started by the command of its Railway file."""

    def __init__(self, folder: Path, start: type[ChildProcess] = ChildProcess, /, **environment: str) -> None:
        """`start` may be ForkedRoom, which starts it in less time."""
        self.log = folder / "service.log"
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "PORT": str(free_port()),
            "EMBEDDINGS": "off",
            "API_KEY": API_KEY,
            **environment,
        }
        self.url = f"http://127.0.0.1:{self.environment['PORT']}"
        self.running = start(
            Child(
                name="service",
                command=command_of(RAILWAY["startCommand"]),
                environment=self.environment,
                folder=ROOT,
                log=self.log,
                stop_timeout_seconds=60,
            )
        )

    def processes(self) -> dict[str, psutil.Process]:
        """Return the running processes by their modules."""
        found = {}
        for child in psutil.Process(self.running.pid).children():
            with suppress(psutil.Error):  # The process may be ending.
                found["".join(child.cmdline()[-1:])] = child
        return found

    def send(self, command: str, **data: Any) -> Payload:
        """Send a command and wait for its response, which must be a success."""
        body = envelope(command, data.pop("session_id"), **data)
        answer = httpx.post(f"{self.url}/v1/webhook?wait=30", json=body, headers={"X-API-Key": API_KEY}, timeout=60)
        assert answer.status_code == 200, answer.text
        answered: Payload = answer.json()
        return answered

    def wait_until_ready(self) -> None:
        """Wait until the relay accepts webhooks."""
        wait_for(lambda: httpx.get(f"{self.url}/readyz").status_code == 200, seconds=START_SECONDS, what="ready")


def command_of(line: str) -> tuple[str, ...]:
    """Return a command of the Railway file with the Python of the tests."""
    python, *arguments = shlex.split(line)
    assert python == "python"
    return sys.executable, *arguments


@pytest.fixture(scope="module")
def servers(postgres: EmbeddedServer) -> Iterator[dict[str, str]]:
    """A migrated database and a Redis, as settings."""
    with new_database(postgres) as database_url, running_valkey() as valkey:
        yield {"DATABASE_URL": database_url, "REDIS_URL": valkey.url}


@contextmanager
def running(folder: Path, **environment: str) -> Iterator[SingleService]:
    """Run the service within the block, from when it is ready."""
    service = SingleService(folder, **environment)
    try:
        service.wait_until_ready()
        yield service
    finally:
        service.running.stop()
        require_no_secret(service.log)
        require_no_bug(service.log)


def test_one_command_runs_all_replaces_a_killed_process_and_ends_all(servers: dict[str, str], tmp_path: Path) -> None:
    dashboard = {"DASHBOARD_PASSWORD": "let-me-in", "DASHBOARD_PORT": str(free_port())}
    with running(tmp_path, **servers, **dashboard, RELAY_PROCESSES="") as service:
        accepts_applies_and_shows_the_queue(service)
        replaces_a_killed_process_and_ends_all(service)


def accepts_applies_and_shows_the_queue(service: SingleService) -> None:
    session_id = new_id()
    service.send("create_session", session_id=session_id, title="Small")
    assert service.send("get_session_summary", session_id=session_id)["data"]["title"] == "Small"
    dashboard = f"http://127.0.0.1:{service.environment['DASHBOARD_PORT']}"
    wait_for(lambda: httpx.get(dashboard).status_code == 401, what="the dashboard's password prompt")
    # Small by default, whatever the machine has: one process each, so the relay has no supervisor.
    assert service.processes()["api"].children() == []
    workers = [child.name() for child in service.processes()["worker"].children()]
    assert sorted(workers) == ["sweeper", "worker-1"]


def replaces_a_killed_process_and_ends_all(service: SingleService) -> None:
    for module in ("api", "worker") if IS_LONG else ("api",):
        killed = service.processes()[module]
        killed.kill()
        wait_for(lambda module=module, killed=killed: service.processes()[module] != killed, what="restarted")  # type: ignore[misc]
    service.wait_until_ready()
    service.send("create_session", session_id=new_id(), title="Afterwards")
    assert "The relay was ended by SIGKILL; restarting it" in service.log.read_text()
    everyone = psutil.Process(service.running.pid).children(recursive=True)
    os.kill(service.running.pid, signal.SIGTERM)
    wait_for(lambda: service.running.ended() == "ended with exit code 0", seconds=60, what="ended")
    assert [process for process in everyone if process.is_running()] == []


def test_a_service_on_a_new_database_without_a_dashboard_password_runs_without_the_dashboard(
    postgres: EmbeddedServer, servers: dict[str, str], tmp_path: Path
) -> None:
    with new_database(postgres, template="template1") as database_url:
        environment = {**servers, "DATABASE_URL": database_url}
        [prepare] = RAILWAY["preDeployCommand"]
        path = {"PATH": os.environ["PATH"]}
        subprocess.run(command_of(prepare), cwd=ROOT, env=environment | path, check=True, capture_output=True)
        with running(tmp_path, **environment) as service:
            service.send("create_session", session_id=new_id(), title="First")
            assert service.processes().keys() == {"api", "worker"}
            assert "DASHBOARD_PASSWORD is not set: running without the dashboard." in service.log.read_text()


@pytest.mark.parametrize(
    ("wrong", "code", "told"),
    [
        ({"DATABASE_URL": ""}, 2, "DATABASE_URL is not"),
        ({"REDIS_URL": "127.0.0.1"}, 2, "REDIS_URL is not valid"),
        ({"API_KEY": ""}, 2, "API_KEY"),
        ({"HOST": "192.0.2.1"}, 3, "The relay cannot start; stopping the service."),
    ],
    ids=["database", "redis", "key", "address"],
)
def test_a_service_that_cannot_start_ends_with_the_reason(
    servers: dict[str, str], tmp_path: Path, wrong: dict[str, str], code: int, told: str
) -> None:
    service = SingleService(tmp_path, ForkedRoom, **{**servers, **wrong})
    try:
        wait_for(service.running.ended, seconds=START_SECONDS, what="ended")
        assert service.running.exit_code == code
        assert told in service.log.read_text()
    finally:
        service.running.stop()

"""The processes of the Procfile, started with given servers, as a hosting platform starts them."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from local.servers.embedded import EmbeddedServer
from models.process.supervision import Child, Supervisor
from tests.support.ports import free_port
from tests.support.processes.stack import START_SECONDS, new_id, wait_for
from tests.support.project import API_KEY, ROOT
from tests.support.servers import new_database, running_valkey

PROCFILE = dict(line.split(": ", 1) for line in (ROOT / "Procfile").read_text().splitlines())


@pytest.fixture(scope="module")
def platform(postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a platform that runs all processes of the Procfile on an empty database."""
    folder = tmp_path_factory.mktemp("platform")
    with new_database(postgres, template="template1") as database_url, running_valkey() as valkey:
        environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PORT": str(free_port()),
            "DATABASE_URL": database_url.replace("postgresql://", "postgres://"),
            "REDIS_URL": valkey.url,
            "API_KEY": API_KEY,
            "EMBEDDINGS": "off",
            "DASHBOARD_PASSWORD": "let-me-in",
            "DASHBOARD_PORT": str(free_port()),
        }
        subprocess.run(PROCFILE["release"], shell=True, cwd=ROOT, env=environment, check=True)
        supervisor = Supervisor()
        for process in ("relay", "worker", "dashboard"):
            log = folder / f"{process}.log"
            command = ("bash", "-c", f"exec env {PROCFILE[process]}")
            supervisor.start(Child(name=process, command=command, environment=environment, folder=ROOT, log=log))
        relay_url = f"http://127.0.0.1:{environment['PORT']}"
        wait_for(
            lambda: httpx.get(f"{relay_url}/readyz").json()["postgres"] == "ok", seconds=START_SECONDS, what="ready"
        )
        yield {**environment, "RELAY_URL": relay_url}
        supervisor.stop(together=True)


def test_examples_are_answered_by_the_processes_of_the_procfile(platform: dict[str, str]) -> None:
    for name in ("create_session", "store_memory_decision", "retrieve_memory"):
        body = (ROOT / "examples" / f"{name}.json").read_bytes()
        url = f"{platform['RELAY_URL']}/v1/webhook?wait=30"
        answer = httpx.post(url, content=body, headers={"X-API-Key": API_KEY}, timeout=60)
        assert (answer.status_code, answer.json()["status"]) == (200, "success"), answer.text
    assert "We take a hybrid inverter." in answer.text


@pytest.mark.torture
def test_all_examples_pass_against_the_processes_of_the_procfile(platform: dict[str, str]) -> None:
    run = subprocess.run(
        ["bash", "examples/test_all.sh"], cwd=ROOT, env=platform, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_dashboard_shows_the_drains_after_sign_in(platform: dict[str, str]) -> None:
    headers = {"X-API-Key": API_KEY}
    body = {"command": "create_session", "session_id": new_id(), "data": {"title": "Shown"}}
    sent = httpx.post(f"{platform['RELAY_URL']}/v1/webhook?wait=30", json=body, headers=headers)
    assert sent.status_code == 200, sent.text
    url = f"http://127.0.0.1:{platform['DASHBOARD_PORT']}"
    wait_for(lambda: httpx.get(url).status_code == 401, what="password prompt")
    key = base64.b64encode(b"admin:let-me-in").decode()

    def drained() -> bool:
        workers = httpx.get(f"{url}/0/data/workers.json", headers={"Authorization": f"Basic {key}"}).json()["workers"]
        return any(worker["queues"] == ["session-relay"] and worker["successful_job_count"] > 0 for worker in workers)

    wait_for(drained, what="job listed")

"""The health check of a worker: it judges its own processes, whatever other workers do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from local.servers.embedded import EmbeddedServer
from models.process.supervision import ChildProcess
from tests.support.processes.stack import Stack, wait_for
from tests.support.project import ROOT
from tests.support.servers import execute, new_database, running_valkey
from worker.health import CHILD_LIMIT_SECONDS, find_troubles

HEALTHY = (0, "The worker is healthy.\n")
NOTICED_SECONDS = CHILD_LIMIT_SECONDS + 20
"""The time in which the check must notice a process that does nothing; a busy machine needs more than the limit."""


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedServer]:
    """A Redis that tests may stop."""
    with running_valkey() as server:
        yield server


@pytest.fixture(scope="module")
def database_url(postgres: EmbeddedServer) -> Iterator[str]:
    with new_database(postgres) as url:
        yield url


@pytest.fixture(scope="module")
def replicas(
    valkey: EmbeddedServer, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Stack, Stack]]:
    """Two workers on the same servers, as two replicas of a container."""
    both = []
    for name in ("first", "second"):
        folder = tmp_path_factory.mktemp(name)
        stack = Stack(database_url=database_url, redis_url=valkey.url, folder=folder, HEALTH_DIR=str(folder / "health"))
        stack.start("worker")
        both.append(stack)
    first, second = both
    try:
        for stack in both:
            wait_until_healthy(stack, seconds=90)
        yield first, second
    finally:
        for stack in both:
            stack.close()


def check(stack: Stack) -> tuple[int, str]:
    """Run the health check beside a worker, as a container does. Returns its exit code and its output."""
    done = subprocess.run(
        [sys.executable, "-m", "worker.health"],
        cwd=ROOT,
        env=stack.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    return done.returncode, done.stdout


def troubles(stack: Stack) -> list[str]:
    """Return what the check would report, without a process for each look."""
    return find_troubles(Path(stack.environment["HEALTH_DIR"]))


def wait_until_healthy(stack: Stack, *, seconds: float = 60) -> None:
    """Wait until the check reports nothing."""
    wait_for(lambda: not troubles(stack), seconds=seconds, what="healthy")
    assert check(stack) == HEALTHY


def children(stack: Stack, *names: str) -> list[psutil.Process]:
    """Return the children of the worker's supervisor with these names, as far as they run."""
    found = []
    for process in psutil.Process(stack.pid("worker")).children():
        with suppress(psutil.Error):
            if process.name() in names and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def test_a_process_that_keeps_dying_is_reported_until_it_works_again(replicas: tuple[Stack, Stack]) -> None:
    first, second = replicas
    killed: set[int] = set()

    def report() -> str:
        for process in children(first, "worker-1"):
            process.kill()
            killed.add(process.pid)
        code, told = check(first)
        return told if code == 1 else ""

    assert wait_for(report, what="the death reported").startswith(("worker-1 has died", "worker-1 has just started"))
    assert check(second) == HEALTHY
    wait_until_healthy(first)
    [successor] = children(first, "worker-1")
    assert successor.pid not in killed


def test_processes_that_hang_are_reported_by_name(replicas: tuple[Stack, Stack]) -> None:
    first, second = replicas
    hung = children(first, "worker-2", "sweeper")
    for process in hung:
        process.suspend()
    try:
        wait_for(lambda: len(troubles(first)) == 2, seconds=NOTICED_SECONDS, what="both reported")
        code, told = check(first)
    finally:
        for process in hung:
            process.resume()
    assert code == 1
    assert [line.partition(" is stuck")[0] for line in told.splitlines()] == ["worker-2", "sweeper"]
    assert check(second) == HEALTHY
    wait_until_healthy(first)


def test_a_supervisor_that_hangs_is_reported(replicas: tuple[Stack, Stack]) -> None:
    first, _ = replicas
    os.kill(first.pid("worker"), signal.SIGSTOP)
    try:
        wait_for(lambda: troubles(first), what="reported")
        code, told = check(first)
        assert (code, told.startswith("The supervisor has not acted for")) == (1, True)
    finally:
        os.kill(first.pid("worker"), signal.SIGCONT)
    wait_until_healthy(first)


def test_all_replicas_report_servers_that_do_not_answer(
    replicas: tuple[Stack, Stack], valkey: EmbeddedServer, postgres: EmbeddedServer, database_url: str
) -> None:
    def unhealthy() -> list[set[str]]:
        """The names of the processes that each replica reports."""
        return [{line.partition(" ")[0] for line in troubles(stack)} for stack in replicas]

    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        everyone = [{"worker-1", "worker-2", "sweeper"}] * 2
        wait_for(lambda: unhealthy() == everyone, seconds=NOTICED_SECONDS, what="paused Redis reported")
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    for stack in replicas:
        wait_until_healthy(stack)
    name = urlsplit(database_url).path.removeprefix("/")
    execute(postgres.url, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS false")
    execute(postgres.url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    try:
        # Also the sweeper that does not lead: its own way to Postgres may be the one that is broken.
        wait_for(lambda: unhealthy() == [{"sweeper"}] * 2, seconds=NOTICED_SECONDS, what="refusing Postgres reported")
    finally:
        execute(postgres.url, f"ALTER DATABASE {name} WITH ALLOW_CONNECTIONS true")
    for stack in replicas:
        wait_until_healthy(stack)


def test_a_worker_that_was_stopped_or_has_another_folder_is_reported(tmp_path: Path) -> None:
    stack = Stack(database_url="", redis_url="redis://127.0.0.1:1/0", folder=tmp_path, HEALTH_DIR=str(tmp_path / "h"))
    code, told = check(stack)
    assert code == 1
    assert told == f"The worker has not started its processes, or its HEALTH_DIR is not {tmp_path / 'h'}.\n"
    stack.close()


def test_a_folder_that_cannot_be_written_ends_the_worker(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    stack = Stack(
        database_url="postgresql://127.0.0.1/d",
        redis_url="redis://127.0.0.1:1/0",
        folder=tmp_path,
        HEALTH_DIR=str(file / "health"),
    )
    stack.start("worker")
    running: ChildProcess = stack._running["worker"]
    wait_for(lambda: running.ended() == "ended with exit code 2", what="ended")
    assert f"HEALTH_DIR {file / 'health'} cannot be written: Not a directory." in stack.log("worker")
    stack.close()

"""The processes of one relay: how they start, share a port, and end."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import psutil
import pytest

from relay.processes import CANNOT_LISTEN
from tests.support.processes.connections import listening, serving_processes, wait_until_complete
from tests.support.processes.fork_server import run_room
from tests.support.processes.serving import Serving
from tests.support.processes.stack import wait_for

CONNECTIONS = 64


@pytest.fixture(scope="module")
def pair(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A relay of two processes."""
    folder = tmp_path_factory.mktemp("pair")
    with closing(Serving("relay", folder, REDIS_URL=redis_url, RELAY_PROCESSES="2")) as serving:
        wait_until_complete(serving.running.pid, serving.port)
        yield serving


def test_connections_are_spread_over_the_processes(pair: Serving) -> None:
    processes = wait_until_complete(pair.running.pid, pair.port)
    with ExitStack() as held:
        own = {
            held.enter_context(socket.create_connection(("127.0.0.1", pair.port))).getsockname()
            for _ in range(CONNECTIONS)
        }

        def counts() -> list[int]:
            return [sum(found.raddr in own for found in process.net_connections("tcp")) for process in processes]

        wait_for(lambda: sum(counts()) == CONNECTIONS, what="all accepted")
        assert min(counts()) >= CONNECTIONS // 8, counts()


def test_the_connections_of_a_process_that_dies_again_at_once_go_to_the_other(pair: Serving) -> None:
    supervisor = pair.running.pid
    before = {process.pid for process in wait_until_complete(pair.running.pid, pair.port)}
    assert listening(supervisor, pair.port) == 2
    victim = next(iter(before))
    psutil.Process(victim).kill()
    successor = wait_for(
        lambda: [process for process in serving_processes(supervisor) if process.pid not in before], what="restarted"
    )
    assert listening(supervisor, pair.port) == 2  # What arrives meanwhile waits for it.
    successor[0].kill()
    wait_for(lambda: listening(supervisor, pair.port) == 1, what="socket closed")
    assert pair.client.get("/healthz").status_code == 200
    assert victim not in {process.pid for process in wait_until_complete(pair.running.pid, pair.port)}
    assert listening(supervisor, pair.port) == 2
    assert "was ended by SIGKILL; restarting it in" in pair.log()


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_port_in_use_ends_the_start_with_its_reason(processes: str, pair: Serving, tmp_path: Path) -> None:
    environment = {
        "API_KEY": "k",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "PORT": str(pair.port),
        "RELAY_PROCESSES": processes,
    }
    log = tmp_path / "log"
    assert run_room("relay", log, environment) == CANNOT_LISTEN
    assert "address already in use" in log.read_text()
    assert "Traceback" not in log.read_text()


def test_all_addresses_are_served_until_the_supervisor_is_killed(redis_url: str, tmp_path: Path) -> None:
    with closing(Serving("relay", tmp_path, REDIS_URL=redis_url, RELAY_PROCESSES="2", HOST="")) as serving:
        processes = wait_for(lambda: serving_processes(serving.running.pid)[1:], what="both started")
        families = {found.family for found in psutil.Process(serving.running.pid).net_connections("tcp")}
        has_ipv6 = socket.has_ipv6 and Path("/proc/net/if_inet6").exists()
        assert families == {socket.AF_INET, *([socket.AF_INET6] if has_ipv6 else [])}
        serving.running.kill()
        wait_for(lambda: not any(process.is_running() for process in processes), what="ended")
        with pytest.raises(httpx.ConnectError):
            serving.client.get("/healthz")

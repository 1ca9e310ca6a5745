"""Rolling restarts: two relays and two workers, restarted one after the other while senders go on."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from local.servers.embedded import EmbeddedServer
from models.process.supervision import Child, ChildProcess
from tests.support.deployment import DEPLOY
from tests.support.ports import free_port
from tests.support.processes.stack import Stack, wait_for
from tests.support.project import API_KEY, ROOT
from tests.support.servers import new_database, running_valkey
from tests.support.torture.ledger import Ledger, Load

FEW_SENDERS = Load(senders=4)
INSTALLED_IN = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
HAPROXY = shutil.which("haproxy", path=INSTALLED_IN)
"""The path of haproxy, if it is installed."""


class Stop(NamedTuple):
    """A stop of the relay at a URL, and when, by the monotonic clock."""

    url: str
    began_at: float
    ended_at: float


class Cluster:
    """Two relays and two supervisors of workers, on the same servers."""

    def __init__(self, relays: tuple[Stack, Stack], workers: tuple[Stack, Stack]) -> None:
        self.relays = relays
        self._workers = workers
        self.stops: list[Stop] = []
        """Stops of relays."""

    def roll(self, ledger: Ledger, *, root: Path = ROOT, relays_first: bool = False) -> None:
        """Restart each relay and each worker, one after the other, as the program in that folder, while the ledger's
        senders go on."""
        for stack in (*self.relays, *self._workers):
            stack.root = root
        steps = (self._roll_workers, self._roll_relays)
        for step in reversed(steps) if relays_first else steps:
            step(ledger)

    def _roll_workers(self, ledger: Ledger) -> None:
        for worker in self._workers:
            ledger.hurry()
            worker.stop("worker")
            ledger.wait_for_progress()
            start_worker(worker)
            ledger.wait_for_progress()

    def _roll_relays(self, ledger: Ledger) -> None:
        for relay in self.relays:
            ledger.hurry()
            began_at = time.monotonic()
            relay.stop("api")
            self.stops.append(Stop(relay.url, began_at, time.monotonic()))
            ledger.wait_for_progress()
            relay.start("api")
            before = webhooks_of(relay)
            wait_for(lambda relay=relay, before=before: webhooks_of(relay) > before, what="webhooks there again")  # type: ignore[misc]

    def new_client(self) -> httpx.Client:
        """Return a client that needs no proxy: it sends to the other relay where one refuses the connection."""
        return httpx.Client(
            base_url="http://relays",
            transport=Failover([relay.url for relay in self.relays]),
            headers={"X-API-Key": API_KEY},
            timeout=60,
        )


class Failover(httpx.BaseTransport):
    """Sends requests to one relay after the other, each on a new connection, as proxies do with these relays."""

    def __init__(self, urls: list[str]) -> None:
        self._urls = itertools.cycle(map(httpx.URL, urls))
        self._tries = len(urls)
        self._transport = httpx.HTTPTransport(limits=httpx.Limits(max_keepalive_connections=0))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        for last in (*[False] * (self._tries - 1), True):
            relay = next(self._urls)
            request.url = request.url.copy_with(scheme=relay.scheme, host=relay.host, port=relay.port)
            try:
                return self._transport.handle_request(request)
            except httpx.ConnectError:
                if last:
                    raise
        raise AssertionError("There is no relay.")

    def close(self) -> None:
        self._transport.close()


@contextmanager
def new_cluster(
    postgres: EmbeddedServer, folder: Path, *, database_url: str = "", root: Path = ROOT
) -> Iterator[Cluster]:
    """Start a cluster of the program in `root`, with a Valkey of its own, and a database unless one is given."""
    with ExitStack() as held:
        database_url = database_url or held.enter_context(new_database(postgres))
        redis_url = held.enter_context(running_valkey()).url
        stacks = []
        for name in ("relay-1", "relay-2", "worker-1", "worker-2"):
            stacks.append(Stack(database_url=database_url, redis_url=redis_url, folder=folder / name, workers=1))
            stacks[-1].root = root
            held.callback(stacks[-1].close)
        for relay in stacks[:2]:
            relay.start("api")
        for worker in stacks[2:]:
            start_worker(worker)
        yield Cluster((stacks[0], stacks[1]), (stacks[2], stacks[3]))


def start_worker(worker: Stack) -> None:
    """Start a supervisor of workers, and wait until they run."""
    before = worker.log("worker").count("are running.")
    worker.start("worker")
    wait_for(lambda: worker.log("worker").count("are running.") > before, seconds=60, what="workers running")


def webhooks_of(relay: Stack) -> int:
    """Return how many webhooks a relay has logged."""
    return relay.log("api").count("/v1/webhook")


def roll_behind_haproxy(cluster: Cluster, folder: Path, *, rounds: int, load: Load = FEW_SENDERS) -> None:
    """Roll so many times while senders use haproxy. No attempt may fail, and the ledger must hold."""
    with running_haproxy(cluster, folder) as url:
        new_client = partial(httpx.Client, base_url=url, headers={"X-API-Key": API_KEY}, timeout=60)
        _roll(cluster, new_client, rounds=rounds, load=load)


def roll_without_proxy(cluster: Cluster, *, load: Load = FEW_SENDERS) -> None:
    """Roll once while senders try the other relay where one refuses the connection."""
    _roll(cluster, cluster.new_client, rounds=1, load=load)


def _roll(cluster: Cluster, new_client: Callable[[], httpx.Client], *, rounds: int, load: Load) -> None:
    ledger = Ledger(cluster.relays[0], load=load, new_client=new_client)
    with ledger.sending():
        for number in range(rounds):
            cluster.roll(ledger)
            print(f"rolled {number + 1}/{rounds}: {ledger.confirmed} confirmed")
    assert ledger.failed == []
    # Restarts of a worker may take longer than a sender waits.
    ledger.check(pending=True)


@contextmanager
def running_haproxy(cluster: Cluster, folder: Path) -> Iterator[str]:
    """Run haproxy with the project's configuration in front of the relays, and return its URL. Skips the test where it
    is not installed."""
    if HAPROXY is None:
        pytest.skip("haproxy is not installed (apt-get install haproxy)")
    port = free_port()
    environment = {"PATH": INSTALLED_IN, "BIND": f"127.0.0.1:{port}"}
    for number, relay in enumerate(cluster.relays, start=1):
        environment[f"RELAY_{number}"] = f"127.0.0.1:{relay.port}"
    command = (HAPROXY, "-f", str(DEPLOY / "haproxy" / "haproxy.cfg"))
    log = folder / "haproxy.log"
    haproxy = ChildProcess(Child(name="haproxy", command=command, environment=environment, log=log, lifeline=False))
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: httpx.get(f"{url}/readyz").status_code == 200, what="proxy")
        yield url
    finally:
        haproxy.stop()

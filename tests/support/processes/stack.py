"""The real processes for acceptance tests: the public app and the worker, on servers that a test may kill."""

from __future__ import annotations

import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from string import ascii_lowercase
from typing import Any, TypeVar

import httpx
import psutil
import psycopg2
from redis import Redis

from local.servers.embedded import EmbeddedServer
from models.process.supervision import Child, ChildProcess
from tests.support.logs import require_no_bug, require_no_secret
from tests.support.ports import free_port
from tests.support.processes.fork_server import ForkedRoom
from tests.support.project import API_KEY, ROOT
from tests.support.servers import execute, new_database, running_valkey

T = TypeVar("T")

START_SECONDS = 90
"""The timeout of a start, which takes two seconds on an idle machine."""

Payload = dict[str, Any]

NO_LIMITS = {"RATE_LIMIT": "1000000000/minute", "BYTE_LIMIT": "1000000000000/minute"}
"""Settings of tests that send much and do not test limits."""


def wait_for(
    condition: Callable[[], T], *, seconds: float = 30, what: str = "", longest_pause_seconds: float = 0.1
) -> T:
    """Wait until the condition returns a true value, and return it. Exceptions of servers that are not ready count as
    false."""
    began_at = time.monotonic()
    limit_at = began_at + seconds
    last: object = None
    while time.monotonic() < limit_at:
        try:
            if value := condition():
                return value
            last = value
        except (httpx.HTTPError, psycopg2.OperationalError, OSError, AssertionError, KeyError) as error:
            last = error
        # A condition that takes long is checked less often, as each check takes time of the servers.
        time.sleep(min(max(0.02, (time.monotonic() - began_at) / 10), longest_pause_seconds))
    raise AssertionError(f"Timed out after {seconds:g} s. Expected: {what or 'a true value'}. Last: {last!r}")


class Stack:
    """`python -m api` and `python -m worker` on the servers given."""

    def __init__(self, *, database_url: str, redis_url: str, folder: Path, workers: int = 2, **more: str) -> None:
        self.api_key = API_KEY
        self.root = ROOT
        """The folder of the program, which may be another version's; it may be changed between starts."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.failpoints = folder / "failpoints"
        self.failpoints.mkdir(parents=True)
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "API_KEY": API_KEY,
            "PORT": str(self.port),
            "RELAY_PROCESSES": "1",
            "EMBEDDINGS": "off",
            "WORKERS": str(workers),
            "FAILPOINT_DIR": str(self.failpoints),
            **NO_LIMITS,
            **more,
        }
        self.redis = Redis.from_url(redis_url)
        self.client = self.new_client()
        self._running: dict[str, ChildProcess] = {}

    def new_client(self) -> httpx.Client:
        """Return a client with the key, and connections of its own."""
        limits = httpx.Limits(max_connections=64)
        return httpx.Client(base_url=self.url, headers={"X-API-Key": API_KEY}, timeout=60, limits=limits)

    def start(self, *names: str) -> None:
        """Start `api`, `worker` or both, unless they run, and wait until the app responds."""
        for name in names or ("api", "worker"):
            if name in self._running and self._running[name].ended() is None:
                continue
            child = Child(
                name=name,
                command=(sys.executable, "-m", name),
                environment={**self.environment, "PYTHONPATH": str(self.root)},
                folder=self.root,
                log=self.folder / f"{name}.log",
                stop_timeout_seconds=30,
            )
            self._running[name] = ForkedRoom(child) if self.root == ROOT else ChildProcess(child)
        if "api" in self._running:
            wait_for(
                lambda: self.client.get("/healthz").status_code == 200, seconds=START_SECONDS, what="server responding"
            )

    def stop(self, *names: str) -> None:
        """Stop processes cleanly."""
        for name in names or tuple(self._running):
            self._running.pop(name).stop()

    def kill(self, name: str) -> None:
        """Kill a process like kill -9."""
        self._running.pop(name).kill()

    def pid(self, name: str) -> int:
        """Return the process id of `api` or `worker`."""
        return self._running[name].pid

    def workers(self) -> list[psutil.Process]:
        """Return the draining processes under the supervisor."""
        return self.children("worker-")

    def children(self, prefix: str) -> list[psutil.Process]:
        """Return the processes under the worker's supervisor whose name begins like this."""
        found = []
        for process in psutil.Process(self.pid("worker")).children():
            with suppress(psutil.Error):  # The process may be ending.
                if process.name().startswith(prefix):
                    found.append(process)
        return found

    def log(self, name: str) -> str:
        """Return a process's log."""
        with suppress(FileNotFoundError):
            return (self.folder / f"{name}.log").read_text()
        return ""

    def close(self) -> None:
        """Stop all, and check that none has logged a secret or a bug."""
        self.stop()
        self.client.close()
        self.redis.close()
        for log in self.folder.glob("*.log"):
            require_no_secret(log)
            require_no_bug(log)

    def send(self, command: str, session_id: str | None = None, **data: Any) -> Payload:
        """Send a command and wait for its response, which must be a success. Returns its body."""
        answer = self.try_send(command, session_id, **data)
        assert answer.status_code == 200, answer.text
        body: Payload = answer.json()
        assert body["status"] == "success"
        return body

    def try_send(self, command: str, session_id: str | None = None, **data: Any) -> httpx.Response:
        """Send a command and wait. Returns any response."""
        return self.client.post("/v1/webhook?wait=30", json=envelope(command, session_id, **data))

    def post(self, command: str, session_id: str | None = None, *, delivery_id: str = "", **data: Any) -> Payload:
        """Send a command without waiting. It must be accepted."""
        headers = {"Idempotency-Key": delivery_id} if delivery_id else {}
        answer = self.client.post("/v1/webhook", json=envelope(command, session_id, **data), headers=headers)
        assert answer.status_code == 202, answer.text
        body: Payload = answer.json()
        return body

    def drained(self) -> bool:
        """Return whether all inboxes are empty."""
        return all(self.redis.xlen(f"sr:inbox:{shard:02d}") == 0 for shard in range(16))

    def wait_until_drained(self, seconds: float = 60) -> None:
        """Wait until all accepted entries are applied."""
        wait_for(self.drained, seconds=seconds, what="drained")

    def empty(self) -> None:
        """Delete all sessions, deliveries and agents, once everything is applied. Those that the migrations register
        stay, as if never seen. Keys and tokens stay, too."""
        self.wait_until_drained()
        statement = """
        BEGIN;
        SET LOCAL lock_timeout = '5s';
        TRUNCATE sessions, deliveries CASCADE;
        DELETE FROM agents WHERE name NOT IN ('claude_code', 'researcher', 'gemini_cli', 'codex');
        UPDATE agents SET last_seen_at = NULL;
        COMMIT
        """
        wait_for(lambda: execute(self.environment["DATABASE_URL"], statement), seconds=60, what="tables emptied")

    def journal(self, session_id: str) -> list[Payload]:
        """Return all events of a session."""
        events: list[Payload] = []
        cursor = ""
        while True:
            query = {"limit": "500", **({"after": cursor} if cursor else {})}
            page = self.client.get(f"/v1/sessions/{session_id}/events", params=query).json()
            events += page["items"]
            if not page["items"]:
                return events
            cursor = page["next_cursor"]


@contextmanager
def new_stack(
    postgres: EmbeddedServer,
    folder: Path,
    *,
    database_url: str = "",
    redis_url: str = "",
    workers: int = 1,
    **more: str,
) -> Iterator[Stack]:
    """Start the processes, with a database of their own in that Postgres and a Valkey of their own, unless others are
    given."""
    with ExitStack() as held:
        database_url = database_url or held.enter_context(new_database(postgres))
        redis_url = redis_url or held.enter_context(running_valkey()).url
        stack = Stack(database_url=database_url, redis_url=redis_url, folder=folder, workers=workers, **more)
        held.callback(stack.close)
        stack.start()
        yield stack


def unseen_updates(answer: Payload) -> list[Payload]:
    """Return the updates about the response's session that no key has seen. Tests share a key, so updates about other
    sessions are left out."""
    told: list[Payload] = answer.get("updates", [])
    return [update for update in told if update["status"] != "elsewhere" and not update.get("seen")]


def envelope(command: str, session_id: str | None = None, **data: Any) -> Payload:
    """Return a webhook's body."""
    body: Payload = {"type": "collaborative_session_command", "command": command, "data": data}
    return body if session_id is None else {**body, "session_id": session_id}


def new_id(prefix: str = "session") -> str:
    """Return an id that no other test uses."""
    return f"{prefix}-{secrets.token_hex(6)}"


def new_word(beginning: str) -> str:
    """Return a word of letters that no other test uses, and that shares no part with others."""
    return beginning + "".join(secrets.choice(ascii_lowercase) for _ in range(12))


def in_parallel(work: Callable[[T], Any], items: Sequence[T], *, threads: int = 16) -> Iterator[Any]:
    """Do work for each item, many at once. Yields the results in order."""
    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(work, items)

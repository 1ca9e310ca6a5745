"""The real servers and processes that are measured, with the durability settings of the local stack.

Postgres lives as long as the run. Each measurement gets a new Valkey, empty tables, and processes of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg2
from redis import Redis

from bench.speed.load import ROOT
from bench.speed.sample_rows import Sample, read_sample
from bench.speed.webhook import API_KEY, SESSIONS, SOURCE_PATH, body_of, headers
from local.servers.embedded import EmbeddedServer, start_postgres, start_valkey
from local.stack.environment import free_port
from models.process.supervision import Child, ChildProcess
from models.queue.inbox import ENTRY_FIELD, SHARDS, inbox_key
from models.settings import read_settings
from sessions.embeddings.configured import configured_encoder

START_SECONDS = 60.0
DRAIN_SECONDS = 300.0
POLL_SECONDS = 0.01
LOG_LETTERS = 500
"""Part of a log that is shown when its process does not start."""
POSTGRES_SETTINGS = {"track_commit_timestamp": "on"}
"""Tells when each webhook was applied, without asking while the load runs. All else is as in the local stack."""
VALKEY_SETTINGS = {"maxmemory": "2gb"}
"""Enough for a full inbox. Durability is as in the local stack."""
INHERITED = ("PATH", "HOME", "LANG")
"""Variables of the bench that processes get, besides those of embeddings."""
UNLIMITED = {
    "RATE_LIMIT": "1000000000/minute",
    "BYTE_LIMIT": "1000000000000/minute",
    "MAX_BACKLOG": "100000000",
}


def wait_for(condition: Callable[[], bool], *, what: str, seconds: float = START_SECONDS) -> None:
    """Wait until the condition holds. Raises RuntimeError on timeout."""
    limit_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > limit_at:
            raise RuntimeError(f"{what} within {seconds:.0f} s.")
        time.sleep(POLL_SECONDS)


COUNTED = ("memories", "deliveries", "events", "passages")
"""Tables of which only the rows written by a measurement count, if earlier ones are kept."""
WRITTEN = "memories, memory_revisions, deliveries, events, passages, passages_to_embed"
"""Tables that webhooks write to; vectors refer to passages."""


class Stack:
    """The servers of one measurement, and the processes that it starts."""

    def __init__(self, postgres: EmbeddedServer, valkey: EmbeddedServer, folder: Path) -> None:
        self.postgres = postgres
        self.valkey = valkey
        self.redis = Redis.from_url(valkey.url)
        self.pids = {"postgres": postgres.pid, "valkey": valkey.pid}
        self.folder = folder
        self._running: list[ChildProcess] = []
        self._connection = psycopg2.connect(postgres.url)
        self._connection.autocommit = True
        ((self._positions,),) = self.query("SELECT pg_get_serial_sequence('deliveries', 'position')")
        self._drawn_before = self.drawn(self._positions)
        self._rows_before = {table: self._rows(table) for table in COUNTED}

    def close(self) -> None:
        """Stop the processes, the last started first."""
        for process in reversed(self._running):
            process.stop()
        self._running.clear()
        self._connection.close()
        self.redis.close()

    def start(self, name: str, *command: str, **variables: str) -> ChildProcess:
        """Start a Python process of a group, with the environment of a production process."""
        child = Child(
            name=name,
            command=(sys.executable, *command),
            environment=self.environment(variables),
            folder=ROOT,
            log=self.folder / f"{name}.log",
        )
        process = ChildProcess(child)
        self._running.append(process)
        self.pids[name] = process.pid
        return process

    def start_relay(self, **variables: str) -> int:
        """Start the public app, and return its port once it is ready. Raises RuntimeError with its log if it ends."""
        port = free_port("127.0.0.1", 0, variable="PORT")
        relay = self.start("relay", "-m", "api", PORT=str(port), RELAY_PROCESSES="1", **variables)
        wait_until_ready(relay, port)
        return port

    def start_workers(self, count: int, **variables: str) -> ChildProcess:
        """Start worker processes, and return their supervisor once all of them, and the embedder, wait for work."""
        supervisor = self.start("worker", "-m", "worker", WORKERS=str(count), **variables)
        embedders = int(configured_encoder(read_settings(self.environment({}))) is not None)
        wait_for(lambda: int(self.redis.scard("rq:workers")) >= count + embedders, what="The workers did not start")
        return supervisor

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a process."""
        return {
            **{name: value for name, value in os.environ.items() if name in INHERITED or name.startswith("EMBEDDINGS")},
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.valkey.url,
            "API_KEY": API_KEY,
            **UNLIMITED,
            **variables,
        }

    def applied(self) -> int:
        """Return the number of deliveries written since the start. Cheap, and at most a batch ahead."""
        return self.drawn(self._positions) - self._drawn_before

    def drawn(self, sequence: str) -> int:
        """Return the number of values that a sequence, started at 1, has given."""
        return int(self.query(f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {sequence}")[0][0])  # noqa: S608

    def backlog(self) -> int:
        """Return the number of accepted webhooks that wait in the product's inbox."""
        pipeline = self.redis.pipeline(transaction=False)
        for shard in range(SHARDS):
            pipeline.xlen(inbox_key(shard))
        return int(sum(pipeline.execute()))

    def wait_until_drained(self, backlog: Callable[[], int] | None = None) -> None:
        """Wait until nothing accepted is waiting."""
        waiting = backlog or self.backlog
        wait_for(lambda: waiting() == 0, what="The backlog was not drained", seconds=DRAIN_SECONDS)

    def count(self, table: str) -> int:
        """Return the number of rows committed to a table since the start."""
        return self._rows(table) - self._rows_before.get(table, 0)

    def _rows(self, table: str) -> int:
        return int(self.query(f"SELECT count(*) FROM {table}")[0][0])  # noqa: S608

    def query(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Execute a statement and return its rows, if it returns any."""
        with self._connection.cursor() as cursor:
            cursor.execute(statement, parameters or None)
            return list(cursor.fetchall()) if cursor.description else []

    def connection(self, url: str = "") -> Any:
        """Open another connection to Postgres, or to another database there."""
        return psycopg2.connect(url or self.postgres.url)

    def take_sample(self) -> Sample:
        """Create the sessions, and let the product apply a webhook, in order to copy its rows and its entry."""
        port = self.start_relay()
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers(), timeout=60) as client:
            client.post(SOURCE_PATH, content=body_of("sample", 0)).raise_for_status()
            entries = [self.redis.xrange(inbox_key(shard)) for shard in range(SHARDS)]
            (found,) = next(found for found in entries if found)
            entry: Any = found[1]
            self.redis.flushall()
            self.start_workers(1)
            for number in range(SESSIONS):
                data = {"title": f"Bench {number}"}
                body = {"command": "create_session", "session_id": f"bench-{number}", "data": data}
                client.post(SOURCE_PATH, json=body).raise_for_status()
            self.wait_until_drained()
            answer = client.post(f"{SOURCE_PATH}?wait=30", content=body_of("sample", 1))
            if answer.status_code != 200:
                raise RuntimeError(f"The sample was not applied: {answer.text}")
        with self._connection.cursor() as cursor:
            return read_sample(cursor, entry=entry[ENTRY_FIELD].decode())


class Bench:
    """Postgres with the sessions of the webhooks, and stacks on it."""

    def __init__(self, postgres: EmbeddedServer, folder: Path) -> None:
        self.postgres = postgres
        self._folder = folder
        self._count = 0
        with self.stack() as stack:
            self.sample = stack.take_sample()

    @contextmanager
    def stack(
        self,
        *,
        keep_rows: bool = False,
        valkey_settings: Mapping[str, str] | None = None,
        postgres_settings: Mapping[str, str] | None = None,
    ) -> Iterator[Stack]:
        """Start a new Valkey and empty the tables of webhooks, unless their rows are to be kept; stop all processes
        after the block. The settings of Postgres are those of new connections to its database."""
        self._count += 1
        folder = self._folder / f"measurement-{self._count}"
        folder.mkdir(mode=0o755)
        if not keep_rows:
            self._execute(f"TRUNCATE {WRITTEN} RESTART IDENTITY CASCADE")
        self._execute("CHECKPOINT")
        for name, value in (postgres_settings or {}).items():
            self._execute(f"ALTER ROLE CURRENT_USER SET {name} = {value}")
        valkey = start_valkey(folder, settings={**VALKEY_SETTINGS, **(valkey_settings or {})})
        try:
            stack = Stack(self.postgres, valkey, folder)
            try:
                yield stack
            finally:
                stack.close()
        finally:
            valkey.stop()
            for name in postgres_settings or {}:
                self._execute(f"ALTER ROLE CURRENT_USER RESET {name}")
            shutil.rmtree(folder, ignore_errors=True)

    def _execute(self, statement: str) -> None:
        with closing(psycopg2.connect(self.postgres.url)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)


@contextmanager
def new_bench() -> Iterator[Bench]:
    """Start Postgres on a new, migrated database, within the block."""
    with _new_postgres() as (postgres, folder):
        yield Bench(postgres, folder)


@contextmanager
def new_stack() -> Iterator[Stack]:
    """Start Postgres on a new, migrated and empty database, and Valkey, within the block."""
    with _new_postgres() as (postgres, folder):
        valkey = start_valkey(folder, settings=VALKEY_SETTINGS)
        try:
            with closing(Stack(postgres, valkey, folder)) as stack:
                yield stack
        finally:
            valkey.stop()


@contextmanager
def _new_postgres() -> Iterator[tuple[EmbeddedServer, Path]]:
    with tempfile.TemporaryDirectory(prefix="session-relay-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # Postgres runs as another user when this runs as root.
        postgres = start_postgres(folder, settings=POSTGRES_SETTINGS)
        try:
            environment = {**os.environ, "DATABASE_URL": postgres.url}
            command = (sys.executable, "-m", "alembic", "upgrade", "head")
            subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)  # noqa: S603
            yield postgres, folder
        finally:
            postgres.stop()


def wait_until_ready(server: ChildProcess, port: int) -> None:
    """Wait until a server's readiness check succeeds. Raises RuntimeError with the end of its log if it ends."""

    def answers() -> bool:
        if how := server.ended():
            log = server.child.log.read_text(errors="replace").strip() if server.child.log else ""
            raise RuntimeError(f"{server.child.name} {how}: {log[-LOG_LETTERS:]}")
        try:
            return client.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    # One client for all attempts: making one takes longer than a request.
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5) as client:
        wait_for(answers, what=f"{server.child.name} was not ready")

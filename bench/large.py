"""Measures session-cli with 10,000 sessions and 100,000 chunks: `python -m bench.large [SESSIONS [CHUNKS]]`.

Fills a new Postgres, and compares the time of `list`, `show` and `search-conversations` over HTTP with the sum of
`session-cli --version` and the relay's bare SQL. Takes some minutes. Prints medians of wall time. Exits with 1 if a
command takes more than three times that.
"""

from __future__ import annotations

import io
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psycopg2
from sqlalchemy import event

from agent.http.client import Client
from local.servers.embedded import start_postgres, start_valkey
from local.stack.environment import free_port
from models.commands.definitions import GetSessionSummary, ListSessions, ReadCommand, Search
from models.errors import Unavailable
from models.field_types import MAX_CHARACTERS
from models.process.supervision import Child, ChildProcess
from models.settings import Settings
from sessions.postgres.connections import create_engine
from sessions.postgres.reads.read_commands import page, read
from sessions.reads.read_scope import ReadScope

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "bin" / "session-cli"
RUNS = 15
LIMIT = 3.0
"""The maximum ratio to the sum of `--version` and the bare SQL."""
RARE, COMMON = "zirconium", "weather"
"""Words that occur in one chunk of 1,000, and in every second one."""
WORDS_OF_A_CHUNK = 60
API_KEY = "key-of-the-bench"
START_SECONDS = 60.0

Statement = tuple[str, Any]


class Case(NamedTuple):
    """A command line, and the read command that it sends."""

    arguments: tuple[str, ...]
    command: ReadCommand
    session_id: str | None = None

    @property
    def name(self) -> str:
        """The command line as typed."""
        return " ".join(self.arguments)


def fill(url: str, *, sessions: int, chunks: int) -> None:
    """Insert sessions and chunks into the real tables, so that their search columns are computed and indexed."""
    chance = random.Random(1)  # noqa: S311 - reproducible
    vocabulary = ["".join(chance.choices("abcdefghijklmnoprstuvw", k=chance.randint(3, 9))) for _ in range(3_000)]
    now = datetime.now(UTC)

    def times(number: int) -> str:
        return (now - timedelta(seconds=10 * (sessions - number))).isoformat()

    def rows_of_sessions() -> Iterator[str]:
        for number in range(sessions):
            yield "\t".join(
                (f"s{number}", f"Session {number}", "{Ana,Ben}", "", "active", "bench", times(number), times(number))
            )

    def rows_of_chunks() -> Iterator[str]:
        for number in range(chunks):
            words = chance.choices(vocabulary, k=WORDS_OF_A_CHUNK)
            words += [RARE] * (number % 1_000 == 0) + [COMMON] * (number % 2)
            at = times(number % sessions)
            content = "Ana: " + " ".join(words)
            yield "\t".join((f"s{number % sessions}", f"c{number}", content, "dialogue", "{}", "{}", "{}", "bench", at))

    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        for table, columns, rows in (
            (
                "sessions",
                "session_id, title, participants, context, status, created_by, created_at, last_activity_at",
                rows_of_sessions(),
            ),
            (
                "conversation_chunks",
                "session_id, chunk_id, content, format, participants, extracted_items, metadata, created_by,"
                " created_at",
                rows_of_chunks(),
            ),
        ):
            cursor.copy_expert(f"COPY {table} ({columns}) FROM STDIN", io.StringIO("".join(f"{row}\n" for row in rows)))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    connection.close()


def statements_of(settings: Settings, case: Case) -> list[Statement]:
    """Record the statements that the relay sends to Postgres for a read."""
    engine = create_engine(settings, application_name="session-relay bench", pool_size=1)
    sent: list[Statement] = []

    def record(_: Any, __: Any, statement: str, parameters: Any, ___: Any, ____: bool) -> None:
        sent.append((statement, parameters))

    origin: dict[str, Any] = {"session_id": case.session_id, "session_glob": None, "now": datetime.now(UTC)}
    with engine.connect() as connection:
        event.listen(engine, "before_cursor_execute", record)
        (read if isinstance(case.command, GetSessionSummary) else page)(connection, case.command, ReadScope(**origin))
    engine.dispose()
    return sent


def run_statements(connection: Any, statements: list[Statement]) -> None:
    """Execute the statements one after another."""
    with connection.cursor() as cursor:
        for statement, parameters in statements:
            cursor.execute(statement, parameters)
            if cursor.description:
                cursor.fetchall()


def run_program(environment: dict[str, str], *arguments: str) -> None:
    """Run a command line. Raises CalledProcessError if it fails."""
    subprocess.run([PROGRAM, *arguments], env=environment, capture_output=True, check=True)  # noqa: S603


def median_seconds(works: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Measure the median time of each task. They alternate, so that other load affects all equally."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(RUNS + 1):
        for name, work in works.items():
            began_at = time.perf_counter()
            work()
            if turn:  # The first one warms up.
                taken[name].append(time.perf_counter() - began_at)
    return {name: statistics.median(times) for name, times in taken.items()}


def main() -> int:
    """Print a line for each command."""
    sessions = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    chunks = int(sys.argv[2]) if len(sys.argv) > 2 else 10 * sessions
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="session-relay-bench-")))
        folder.chmod(0o755)
        postgres = start_postgres(folder)
        ends.callback(postgres.stop)
        valkey = start_valkey(folder)
        ends.callback(valkey.stop)
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": str(ROOT),
            "DATABASE_URL": postgres.url,
            "REDIS_URL": valkey.url,
            "API_KEY": API_KEY,
            "RATE_LIMIT": "1000000/minute",
            "PORT": str(free_port("127.0.0.1", 0, variable="PORT")),
            "RELAY_PROCESSES": "1",
        }
        subprocess.run([sys.executable, "-m", "alembic", "upgrade", "head"], cwd=ROOT, env=environment, check=True)
        began_at = time.perf_counter()
        fill(postgres.url, sessions=sessions, chunks=chunks)
        print(f"{sessions:,} sessions and {chunks:,} chunks in {time.perf_counter() - began_at:.0f} s", flush=True)
        app = ChildProcess(
            Child(name="api", command=(sys.executable, "-m", "api"), environment=environment, log=folder / "api.log")
        )
        ends.callback(app.stop)
        return compare(environment, sessions=sessions)


def compare(environment: dict[str, str], *, sessions: int) -> int:
    """Measure all cases. Returns 1 if one exceeds the limit."""
    relay = f"http://127.0.0.1:{environment['PORT']}"
    wait_for_relay(Client(relay, API_KEY))
    seen_by_cli = {**environment, "RELAY_URL": relay}
    settings = Settings(database_url=environment["DATABASE_URL"])
    one = f"s{sessions // 2}"
    cases = [
        Case(("list",), msgspec.convert({"limit": 50, "max_characters": MAX_CHARACTERS}, ListSessions)),
        Case(("show", one), msgspec.convert({"max_characters": MAX_CHARACTERS}, GetSessionSummary), one),
        *(
            Case(
                ("search-conversations", word),
                msgspec.convert(
                    {"q": word, "in": ["conversations"], "limit": 20, "max_characters": MAX_CHARACTERS}, Search
                ),
            )
            for word in (RARE, COMMON)
        ),
    ]
    connection = psycopg2.connect(settings.database_url)
    works: dict[str, Callable[[], None]] = {"--version": partial(run_program, seen_by_cli, "--version")}
    for case in cases:
        works[f"SQL {case.name}"] = partial(run_statements, connection, statements_of(settings, case))
        works[case.name] = partial(run_program, seen_by_cli, *case.arguments)
    taken = median_seconds(works)
    connection.close()
    print(f"{'milliseconds':32} {'command':>8} {'--version':>10} {'SQL':>8} {'ratio':>6}")
    least = taken["--version"]
    slowest = 0.0
    for case in cases:
        whole, sql = taken[case.name], taken[f"SQL {case.name}"]
        ratio = whole / (least + sql)
        slowest = max(slowest, ratio)
        print(f"{case.name:32} {whole * 1000:8.0f} {least * 1000:10.0f} {sql * 1000:8.1f} {ratio:6.2f}")
    return int(slowest > LIMIT)


def wait_for_relay(client: Client) -> None:
    """Wait until the app responds. Raises its last error on timeout."""
    limit_at = time.monotonic() + START_SECONDS
    while True:
        try:
            client.get("/v1/sessions", {"limit": 1})
            return
        except Unavailable:
            if time.monotonic() > limit_at:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())

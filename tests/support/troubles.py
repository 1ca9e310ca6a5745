"""The trouble that each alert reports, caused on real servers and processes, and removed again.

Each function is a context manager: within its block there is the trouble.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, cast

import httpx
import msgspec
import psutil
from sqlalchemy import Engine

from local.servers.embedded import EmbeddedServer
from models.queue.inbox import inbox_key, shard_of
from models.tables import SCHEMA_REVISION
from tests.support.clients.dead_letters import dead_letters_in, poisoned_session, remove_cause, send_poison
from tests.support.processes.serving import Serving
from tests.support.processes.stack import Payload, Stack, new_id, wait_for
from tests.support.servers import execute
from tests.support.stores.inbox import entry, push

MAX_BACKLOG = 40
"""For the place's relay: so many commands can be sent quickly."""
TEXTS = 510
"""A few more than the alert allows."""


class Place(NamedTuple):
    """A stack with MAX_BACKLOG, its servers, and a folder for logs of further processes."""

    stack: Stack
    postgres: EmbeddedServer
    valkey: EmbeddedServer
    engine: Engine
    folder: Path

    @property
    def servers(self) -> dict[str, str]:
        """The settings of a further process on the same servers."""
        return {name: self.stack.environment[name] for name in ("DATABASE_URL", "REDIS_URL")}


@contextmanager
def no_relay(place: Place) -> Iterator[None]:
    place.stack.stop("api")
    yield
    place.stack.start("api")


@contextmanager
def no_redis(place: Place) -> Iterator[None]:
    place.valkey.pause()
    yield
    place.valkey.restart()
    wait_for(lambda: place.stack.client.get("/readyz").status_code == 200, what="webhooks accepted")


@contextmanager
def no_postgres(place: Place) -> Iterator[None]:
    place.postgres.pause()
    yield
    place.postgres.restart()


@contextmanager
def no_workers(place: Place) -> Iterator[None]:
    place.stack.kill("worker")
    yield
    place.stack.start("worker")


@contextmanager
def full_redis(place: Place) -> Iterator[None]:
    """Redis above the share of its memory from which webhooks are refused."""
    redis = place.stack.redis
    used = cast("dict[str, int]", redis.info("memory"))["used_memory"]
    redis.config_set("maxmemory", int(used / 0.8))
    yield
    redis.config_set("maxmemory", 0)
    wait_for(lambda: place.stack.client.get("/readyz").status_code == 200, what="webhooks accepted")


@contextmanager
def refused_webhooks(place: Place) -> Iterator[None]:
    with full_redis(place):
        wait_for(lambda: place.stack.try_send("list_sessions").status_code == 503, what="a refused webhook")
        yield


@contextmanager
def bug(place: Place) -> Iterator[None]:
    """A table that is missing, which no process expects. Another relay meets it, whose log may show a bug."""
    url = place.stack.environment["DATABASE_URL"]
    execute(url, "ALTER TABLE artifacts RENAME TO artifacts_elsewhere")
    serving = Serving("api", place.folder, **place.servers)
    answer = serving.client.get("/v1/artifacts")
    execute(url, "ALTER TABLE artifacts_elsewhere RENAME TO artifacts")
    serving.close()
    assert answer.status_code == 500
    yield


@contextmanager
def weak_settings(place: Place) -> Iterator[None]:
    place.stack.redis.config_set("appendfsync", "everysec")
    yield
    place.stack.redis.config_set("appendfsync", "always")


@contextmanager
def old_backlog(place: Place) -> Iterator[None]:
    """A command that was accepted two minutes ago."""
    stack, session_id = place.stack, new_id("old")
    stack.stop("worker")
    stack.post("create_session", session_id, title="Old")
    key = inbox_key(shard_of(session_id))
    rows = cast("list[tuple[bytes, dict[bytes, bytes]]]", stack.redis.xrange(key))
    stack.redis.delete(key)
    for number, (_, fields) in enumerate(rows):
        stack.redis.xadd(key, fields, id=f"{int((time.time() - 120) * 1000)}-{number}")  # type: ignore[arg-type]
    yield
    stack.start("worker")
    stack.wait_until_drained()


@contextmanager
def long_backlog(place: Place) -> Iterator[None]:
    place.stack.stop("worker")
    for number in range(MAX_BACKLOG // 2 - 1):
        place.stack.post("create_session", new_id("many"), title=f"Number {number}")
    yield
    place.stack.start("worker")
    place.stack.wait_until_drained()


@contextmanager
def dead_letter(place: Place) -> Iterator[None]:
    with poisoned_session(place.stack, place.engine) as session_id:
        send_poison(place.stack, session_id, 1)
        yield
        remove_cause(place.engine)
        place.stack.client.post("/v1/dead-letters/replay").raise_for_status()
        wait_for(lambda: not dead_letters_in(place.stack, session_id), what="no dead letters left")


@contextmanager
def limited_sender(place: Place) -> Iterator[None]:
    serving = Serving("relay", place.folder, REDIS_URL=place.servers["REDIS_URL"], RATE_LIMIT="5/minute")
    statuses = [serving.client.get("/v1/refusals").status_code for _ in range(8)]
    serving.close()
    assert 429 in statuses
    yield


@contextmanager
def wrong_keys(place: Place) -> Iterator[None]:
    for number in range(25):
        answer = httpx.get(f"{place.stack.url}/v1/sessions", headers={"X-API-Key": f"guess-{number}"})
        assert answer.status_code == 401
    yield


@contextmanager
def slow_redis(place: Place) -> Iterator[None]:
    """A Redis that stops for a while in which a webhook arrives."""
    server = psutil.Process(place.valkey.pid)
    body = {"command": "create_session", "session_id": new_id("slow"), "data": {"title": "Slow"}}
    server.suspend()
    try:
        with place.stack.new_client() as client, suppressed_timeout():
            client.post("/v1/webhook", json=body, timeout=1.5)
    finally:
        server.resume()
    yield


@contextmanager
def suppressed_timeout() -> Iterator[None]:
    """Expect a time-out."""
    try:
        yield
    except httpx.ReadTimeout:
        return
    raise AssertionError("The webhook was answered.")


@contextmanager
def slow_commands(place: Place) -> Iterator[None]:
    """Commands that were accepted long before they were applied."""
    accepted_at = datetime.now(UTC) - timedelta(seconds=100)
    made = [entry("create_session", new_id("late"), title="Late") for _ in range(5)]
    push(place.stack.redis, *(msgspec.structs.replace(item, accepted_at=accepted_at) for item in made))
    place.stack.wait_until_drained()
    yield


@contextmanager
def overdue_lease(place: Place) -> Iterator[None]:
    stack, session_id = place.stack, new_id("lease")
    stack.send("create_session", session_id, title="Lease")
    stack.send("delegate_task", session_id, description="Look it up", agent_name="claude_code")
    stack.stop("worker")
    claim = {"agent_name": "claude_code", "worker": "w", "lease_seconds": 1}
    assert stack.client.post("/v1/tasks/claim", json=claim).status_code == 200
    yield
    stack.start("worker")


@contextmanager
def waiting_texts(place: Place) -> Iterator[None]:
    """Texts, while the embedder does nothing. At other times there is none: each would load its model."""
    stack, session_id = place.stack, new_id("texts")
    restart(stack, EMBEDDINGS="on")
    stack.send("create_session", session_id, title="Texts")
    wait_for(lambda: search(stack)["method"] == "hybrid", seconds=60, what="an embedder that has begun")
    [embedder] = wait_for(lambda: stack.children("embedder"), what="an embedder")
    embedder.suspend()
    try:
        for start in range(0, TEXTS, TEXTS // 2):
            numbers = range(start, start + TEXTS // 2)
            items = [
                {"command": "store_memory", "data": {"key": f"m{n}", "type": "note", "content": f"Plant number {n}"}}
                for n in numbers
            ]
            stack.send("batch", session_id, commands=items)
        yield
    finally:
        embedder.resume()
    wait_for(lambda: search(stack)["not_embedded"] < TEXTS - 10, seconds=120, what="some texts embedded")
    restart(stack, "worker", EMBEDDINGS="off")


def restart(stack: Stack, *names: str, **environment: str) -> None:
    """Restart these processes with other settings, by default all."""
    stack.stop(*names)
    stack.environment.update(environment)
    stack.start(*names)


def search(stack: Stack) -> Payload:
    """Return the state of the search."""
    found: Payload = stack.client.get("/v1/status").json()["postgres"]["search"]
    return found


@contextmanager
def other_schema(place: Place) -> Iterator[None]:
    url = place.stack.environment["DATABASE_URL"]
    execute(url, f"UPDATE alembic_version SET version_num = '{int(SCHEMA_REVISION) - 1:04d}'")
    yield
    execute(url, f"UPDATE alembic_version SET version_num = '{SCHEMA_REVISION}'")


TROUBLES: Mapping[str, Callable[[Place], AbstractContextManager[None]]] = {
    "SessionRelayDown": no_relay,
    "SessionRelayRedisDown": no_redis,
    "SessionRelayPostgresDown": no_postgres,
    "SessionRelayWorkersGone": no_workers,
    "SessionRelayRefusing": refused_webhooks,
    "SessionRelayBug": bug,
    "SessionRelayRedisNearlyFull": full_redis,
    "SessionRelayNotDurable": weak_settings,
    "SessionRelayBacklogOld": old_backlog,
    "SessionRelayBacklogNearlyFull": long_backlog,
    "SessionRelayDeadLetters": dead_letter,
    "SessionRelaySenderLimited": limited_sender,
    "SessionRelayCredentialsRefused": wrong_keys,
    "SessionRelayAcceptSlow": slow_redis,
    "SessionRelayApplySlow": slow_commands,
    "SessionRelayLeasesOverdue": overdue_lease,
    "SessionRelayEmbeddingsBehind": waiting_texts,
    "SessionRelaySchemaDiffers": other_schema,
}
"""By the name of the alert."""

"""A serving process (`relay` or `api`), and the part of a worker, played by the test itself."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
from redis import Redis

from models.process.supervision import Child
from models.queue.inbox import (
    ENTRY_FIELD,
    OUTCOME_CHANNEL,
    SHARDS,
    Entry,
    Outcome,
    OutcomeMessage,
    inbox_key,
    outcome_key,
)
from tests.support.logs import require_no_secret
from tests.support.ports import free_port
from tests.support.processes.fork_server import ForkedRoom
from tests.support.processes.stack import NO_LIMITS, START_SECONDS, wait_for
from tests.support.project import API_KEY, ROOT
from tests.support.sockets import receive_all, send_parts
from worker.inbox import OUTCOME_SCRIPT
from worker.outcomes import ANNOUNCED_BYTES


class Serving:
    """`python -m relay` or `python -m api` on a port of its own."""

    def __init__(self, room: str, folder: Path, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / f"{room}-{self.port}.log"
        self.client = httpx.Client(base_url=self.url, headers={"X-API-Key": API_KEY}, timeout=60)
        self.running = ForkedRoom(
            Child(
                name=room,
                command=(sys.executable, "-m", room),
                environment={
                    "PATH": os.environ["PATH"],
                    "EMBEDDINGS": "off",
                    "PYTHONPATH": str(ROOT),
                    "API_KEY": API_KEY,
                    "PORT": str(self.port),
                    "RELAY_PROCESSES": "1",
                    **NO_LIMITS,
                    **environment,
                },
                folder=ROOT,
                log=self._log,
                stop_timeout_seconds=30,
            )
        )
        wait_for(
            lambda: self.client.get("/healthz").status_code == 200, seconds=START_SECONDS, what="server responding"
        )

    def log(self) -> str:
        """Return the process's log."""
        return self._log.read_text()

    def close(self) -> None:
        """Stop the process, and check that it has logged no secret."""
        self.client.close()
        self.running.stop()
        require_no_secret(self._log)

    def post(self, body: Any, path: str = "/v1/webhook", **headers: str) -> httpx.Response:
        """Post JSON, or bytes unchanged."""
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return self.client.post(path, content=content, headers={"Content-Type": "application/json", **headers})

    def exchange(self, data: bytes) -> bytes:
        """Send raw bytes. Returns the bytes received until the connection is closed."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            send_parts(connection, [data])
            return receive_all(connection)


def entries(redis: Redis) -> list[Entry]:
    """Return all entries of the inbox, shard by shard, in order."""
    return [
        msgspec.json.decode(fields[ENTRY_FIELD], type=Entry)
        for shard in range(SHARDS)
        for _, fields in cast("list[tuple[bytes, dict[bytes, bytes]]]", redis.xrange(inbox_key(shard)))
    ]


def wait_for_entry(redis: Redis, delivery_id: str) -> Entry:
    """Return the entry of a delivery, once it is in the inbox."""
    found = wait_for(
        lambda: [entry for entry in entries(redis) if entry.delivery_id == delivery_id],
        what=f"{delivery_id} in the inbox",
    )
    return found[0]


def wait_for_status(status: int, send: Callable[[], httpx.Response]) -> httpx.Response:
    """Send repeatedly until the response has this status. Returns that response."""
    answers: list[httpx.Response] = []

    def came() -> bool:
        answers.append(send())
        return answers[-1].status_code == status

    wait_for(came, what=f"status {status}")
    return answers[-1]


def set_outcome(redis: Redis, entry: Entry, *, status: int = 200, body: bytes = b"{}", announced: bool = True) -> None:
    """Set the outcome of an entry as a worker does after its commit."""
    key = outcome_key(entry.source, entry.delivery_id, entry.hash)
    outcome = Outcome(status=status, body=msgspec.Raw(body))
    encoded = msgspec.json.encode(outcome)
    small = len(encoded) <= ANNOUNCED_BYTES
    message = msgspec.json.encode(OutcomeMessage(key=key, outcome=outcome if small else None))
    channel = OUTCOME_CHANNEL if announced else "nobody"
    redis.eval(OUTCOME_SCRIPT, 1, key, channel, entry.source, encoded, message, message)


def memory(session_id: str = "s", *, text: Any = "x", **outer: Any) -> dict[str, Any]:
    """Return an envelope that stores a memory."""
    return {"command": "store_memory", "session_id": session_id, "data": {"content": text}, **outer}


class Stopwatch:
    """Measures the seconds since it was created."""

    def __init__(self) -> None:
        self._started_at = time.monotonic()

    @property
    def seconds(self) -> float:
        """The seconds until now."""
        return time.monotonic() - self._started_at

"""A client for Python programs: commands, reads, events and tasks of one relay, with one key.

Each command is sent under one delivery id until its outcome is known: it takes effect once, however often a connection
breaks. Errors of the relay are raised as `session_relay.RelayError`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import msgspec

from agent.http.claims_client import Claim, claim
from agent.http.client import Client as HttpClient
from agent.http.client import Query
from agent.http.command_client import send_command
from models.errors import NotFound, SettingsError, TooManyRequests, Unavailable
from models.routes import path_to
from session_relay.commands import Commands

LOCAL_URL = "http://127.0.0.1:8000"
LONGEST_WAIT_SECONDS = 40.0
LEASE_SECONDS = 60
RECONNECT_SECONDS = 2.0
SHORTEST_PAUSE_SECONDS = 0.5


class Client(Commands):
    """A relay and a key. Safe for threads. Use it in a `with` block, or close it."""

    def __init__(self, url: str | None = None, key: str | None = None, *, plain_hosts: Collection[str] = ()) -> None:
        """Without arguments, RELAY_URL (or the local stack's URL) and API_KEY from the environment count. Connects with
        the first call. Raises SettingsError without a key, for an invalid one, and for an http URL, unless its host is
        this machine or one of `plain_hosts`."""
        key = key or os.environ.get("API_KEY")
        if not key:
            raise SettingsError('No key: set API_KEY, or call Client(url, "srk_…").')
        url = url or os.environ.get("RELAY_URL") or LOCAL_URL
        self._http = HttpClient(url, key, plain_hosts=frozenset(plain_hosts))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def send(
        self,
        command: str,
        data: Mapping[str, Any],
        *,
        session_id: str | None = None,
        delivery_id: str | None = None,
    ) -> dict[str, Any]:
        """Send a command by its name; returns the whole response, with its `message`. Raises the error of a rejected
        command, and StillPending if it is stored, but was not applied in 100 s. Repeatable with the same `delivery_id`;
        without one, each call is another command."""
        return send_command(self._http, command, dict(data), session_id=session_id, delivery_id=delivery_id)

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """Read any URL of the relay, such as `/v1/status`. Raises NotFound and the like."""
        return self._http.get(path, dict(query))

    def each(self, call: Callable[..., dict[str, Any]], *arguments: Any, **fields: Any) -> Iterator[dict[str, Any]]:
        """Yield all items of a list, page by page: `client.each(client.list_sessions, filter="active")`."""
        cursor: str | None = fields.pop("cursor", None)
        while True:
            page = call(*arguments, cursor=cursor, **fields)
            yield from next((part for part in page.values() if isinstance(part, list)), [])
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    def events(self, session_id: str, *, after: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the events of a session's journal, from the first one or from that after a `cursor` on, and then as
        they happen: without end, and without gaps. Connects again when the connection breaks. Raises NotFound when the
        session is deleted, and Unavailable when the server is not a relay."""
        yield from self._follow(session_id, after=after, is_over=lambda: False)

    def _follow(self, session_id: str, *, after: str | None, is_over: Callable[[], bool]) -> Iterator[dict[str, Any]]:
        """Yield events. Looks with each message, also those that keep the connection alive, whether it `is_over`."""
        path = path_to("read_events", session_id=session_id)
        while not is_over():
            pause = RECONNECT_SECONDS
            try:
                query: Query = {} if after is None else {"after": after}
                with self._http.stream(path, query, accept="text/event-stream") as parts:
                    for name, text in _messages(parts):
                        if is_over():
                            return
                        if not text:
                            continue
                        event = msgspec.json.decode(text)
                        if name == "error":
                            if event["error"]["code"] == "session_not_found":
                                raise NotFound(event["error"]["message"], code="session_not_found")
                            break
                        after = event["cursor"]
                        yield event
            except (Unavailable, TooManyRequests) as error:
                if not error.retryable:
                    raise
                pause = max(pause, error.retry_after_seconds)
            time.sleep(pause)

    def claim(
        self,
        agent_name: str,
        *,
        worker: str = "python",
        wait: float = LONGEST_WAIT_SECONDS,
        lease_seconds: int = LEASE_SECONDS,
        task_types: Collection[str] = (),
    ) -> Task | None:
        """Claim a task, waiting up to `wait` seconds for one; returns None without one. It is this program's until
        the lease ends: `Task.heartbeat` extends it."""
        found = claim(
            self._http,
            agent_name=agent_name,
            worker=worker,
            wait_seconds=wait,
            lease_seconds=lease_seconds,
            task_types=tuple(task_types),
        )
        return None if found is None else Task(found)

    def tasks(self, agent_name: str, **fields: Any) -> Iterator[Task]:
        """Yield tasks to work on, one after another, without end. Takes the fields of `claim`. Goes on when the relay
        was away. Raises Unavailable when the server is not a relay."""
        while True:
            try:
                task = self.claim(agent_name, **fields)
            except (Unavailable, TooManyRequests) as error:
                if not error.retryable:
                    raise
                time.sleep(max(RECONNECT_SECONDS, error.retry_after_seconds))
                continue
            if task is not None:
                yield task

    def _send(
        self, command: str, data: Mapping[str, Any], session_id: str | None = None, delivery_id: str | None = None
    ) -> dict[str, Any]:
        given = {name: value for name, value in data.items() if value is not None}
        answer: dict[str, Any] = self.send(command, given, session_id=session_id, delivery_id=delivery_id)["data"]
        return answer


class Task:
    """A claimed task. Each of `complete`, `fail`, `ask` and `release` ends the claim; they raise Conflict if the lease
    was lost."""

    def __init__(self, held: Claim) -> None:
        self._claim = held
        self.fields = held.task
        """All that the relay tells of the task: description, input_data, answers, and so on."""

    def __repr__(self) -> str:
        return f"Task({self.session_id!r}, {self.task_id!r})"

    @property
    def task_id(self) -> str:
        """The task's id, within its session."""
        return str(self.fields["task_id"])

    @property
    def session_id(self) -> str:
        """The task's session."""
        return str(self.fields["session_id"])

    @property
    def description(self) -> str:
        """The work to do."""
        return str(self.fields["description"])

    @property
    def input_data(self) -> Any:
        """The JSON object that came with the task."""
        return self.fields.get("input_data", {})

    def heartbeat(self, progress: str = "", *, percent: float | None = None) -> bool:
        """Extend the lease, and show the progress. Returns False when the result is no longer wanted."""
        return not self._claim.heartbeat(progress=progress, percent=percent)["cancelled"]

    def complete(self, output: str = "", *, artifacts: Collection[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """Hand in the result. Artifacts have `name`, `content`, and what add_artifact takes."""
        return self._submit("complete", {"output": output, "artifacts": list(artifacts)})

    def fail(self, error: str, *, retryable: bool = False) -> dict[str, Any]:
        """Report that the work failed. If `retryable`, it is tried again as long as attempts are left."""
        return self._submit("fail", {"error": error, "retryable": retryable})

    def ask(self, question: str) -> dict[str, Any]:
        """Ask whoever delegated the task. The task can be claimed again, with the answer, once there is one."""
        return self._submit("ask", {"question": question})

    def release(self) -> None:
        """Give the task back, as if it had not been claimed."""
        self._claim.release()

    def _submit(self, action: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Submit until the relay tells the effect: the same submission takes effect once."""
        body = msgspec.json.encode(content)
        ends_at = time.monotonic() + self.fields.get("lease_seconds", LEASE_SECONDS)
        while True:
            result = None
            try:
                result = self._claim.submit(action, body)
            except (Unavailable, TooManyRequests):
                if time.monotonic() > ends_at:
                    raise
            if result is not None:
                return result
            time.sleep(SHORTEST_PAUSE_SECONDS)


def _messages(parts: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the data of each message of a stream of server-sent events. Comments are messages without
    data."""
    unread = b""
    for part in parts:
        unread += part
        *blocks, unread = unread.split(b"\n\n")
        for block in blocks:
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
            yield fields.get(b"event", b"").decode(), fields.get(b"data", b"")

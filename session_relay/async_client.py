"""The client for asyncio. Requests run in threads of their own, since many may wait for a long time at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from models.errors import TooManyRequests, Unavailable
from session_relay.async_commands import AsyncCommands
from session_relay.client import LEASE_SECONDS, LONGEST_WAIT_SECONDS, RECONNECT_SECONDS, Client, Task

THREADS = 128
"""Requests at the same time; as many connections are kept."""

T = TypeVar("T")


class AsyncClient(AsyncCommands):
    """`Client` with coroutines. Use it in an `async with` block, or close it. A cancelled call ends its waiting, but
    not its request: a command may still take effect."""

    def __init__(self, url: str | None = None, key: str | None = None, *, plain_hosts: Collection[str] = ()) -> None:
        """Takes what `Client` takes, and raises the same."""
        self._client = Client(url, key, plain_hosts=plain_hosts)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="session-relay")

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    async def send(
        self,
        command: str,
        data: Mapping[str, Any],
        *,
        session_id: str | None = None,
        delivery_id: str | None = None,
    ) -> dict[str, Any]:
        """Send a command by its name, as `Client.send` does."""
        return await self._run(lambda: self._client.send(command, data, session_id=session_id, delivery_id=delivery_id))

    async def get(self, path: str, **query: Any) -> dict[str, Any]:
        """Read any URL of the relay, such as `/v1/status`."""
        return await self._run(lambda: self._client.get(path, **query))

    async def each(
        self, call: Callable[..., Awaitable[dict[str, Any]]], *arguments: Any, **fields: Any
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield all items of a list, page by page: `client.each(client.list_sessions, filter="active")`."""
        cursor: str | None = fields.pop("cursor", None)
        while True:
            page = await call(*arguments, cursor=cursor, **fields)
            for item in next((part for part in page.values() if isinstance(part, list)), []):
                yield item
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    async def events(self, session_id: str, *, after: str | None = None) -> AsyncIterator[dict[str, Any]]:
        """Yield the events of a session's journal, as `Client.events` does."""
        async for event in self._from_thread(partial(self._client._follow, session_id, after=after)):
            yield event

    async def claim(
        self,
        agent_name: str,
        *,
        worker: str = "python",
        wait: float = LONGEST_WAIT_SECONDS,
        lease_seconds: int = LEASE_SECONDS,
        task_types: Collection[str] = (),
    ) -> AsyncTask | None:
        """Claim a task, as `Client.claim` does."""
        task = await self._run(
            lambda: self._client.claim(
                agent_name, worker=worker, wait=wait, lease_seconds=lease_seconds, task_types=task_types
            )
        )
        return None if task is None else AsyncTask(task, self._run)

    async def tasks(self, agent_name: str, **fields: Any) -> AsyncIterator[AsyncTask]:
        """Yield tasks to work on, one after another, as `Client.tasks` does."""
        while True:
            try:
                task = await self.claim(agent_name, **fields)
            except (Unavailable, TooManyRequests) as error:
                if not error.retryable:
                    raise
                await asyncio.sleep(max(RECONNECT_SECONDS, error.retry_after_seconds))
                continue
            if task is not None:
                yield task

    async def _send(
        self, command: str, data: Mapping[str, Any], session_id: str | None = None, delivery_id: str | None = None
    ) -> dict[str, Any]:
        return await self._run(lambda: self._client._send(command, data, session_id, delivery_id))

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _from_thread(self, make: Callable[..., Iterator[T]]) -> AsyncIterator[T]:
        """Yield what an iterator gives in a thread, which takes the next item only when the previous one is used.
        `make` gets `is_over`, which tells the iterator that nobody reads it any more."""
        loop = asyncio.get_running_loop()
        found: asyncio.Queue[tuple[T | None, BaseException | None]] = asyncio.Queue()
        wanted, over = threading.Semaphore(0), threading.Event()

        def follow() -> None:
            def tell(item: T | None, error: BaseException | None = None) -> None:
                loop.call_soon_threadsafe(found.put_nowait, (item, error))

            try:
                for item in make(is_over=over.is_set):
                    if over.is_set():
                        return
                    tell(item)
                    wanted.acquire()
            except Exception as error:
                tell(None, error)

        threading.Thread(target=follow, name="session-relay events", daemon=True).start()
        try:
            while True:
                item, error = await found.get()
                if error is not None:
                    raise error
                yield item  # type: ignore[misc]
                wanted.release()
        finally:
            over.set()
            wanted.release()


class AsyncTask:
    """`Task` with coroutines."""

    def __init__(self, task: Task, run: Callable[[Callable[[], Any]], Awaitable[Any]]) -> None:
        self._task = task
        self._run = run
        self.fields = task.fields
        self.task_id, self.session_id, self.description = task.task_id, task.session_id, task.description
        self.input_data = task.input_data

    def __repr__(self) -> str:
        return f"Async{self._task!r}"

    async def heartbeat(self, progress: str = "", *, percent: float | None = None) -> bool:
        """Extend the lease, and show the progress. Returns False when the result is no longer wanted."""
        return bool(await self._run(lambda: self._task.heartbeat(progress, percent=percent)))

    async def complete(self, output: str = "", *, artifacts: Collection[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """Hand in the result, as `Task.complete` does."""
        return dict(await self._run(lambda: self._task.complete(output, artifacts=artifacts)))

    async def fail(self, error: str, *, retryable: bool = False) -> dict[str, Any]:
        """Report that the work failed, as `Task.fail` does."""
        return dict(await self._run(lambda: self._task.fail(error, retryable=retryable)))

    async def ask(self, question: str) -> dict[str, Any]:
        """Ask whoever delegated the task, as `Task.ask` does."""
        return dict(await self._run(lambda: self._task.ask(question)))

    async def release(self) -> None:
        """Give the task back, as if it had not been claimed."""
        await self._run(self._task.release)

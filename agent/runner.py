"""The agent runner: claims tasks up to its concurrency, runs them in parallel, and shuts down gracefully.
`task_execution` runs a single task.

All events pass through one queue, which only the caller's thread reads; so all decisions are made there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import NamedTuple, TypeAlias

from agent.execution.task_execution import FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS, Job, RunnerEvent, TaskExecution
from agent.http.claims_client import Claim, claim
from agent.http.client import Client
from models.errors import Forbidden, RelayError, SettingsError, TooManyRequests, Unauthorized, Unavailable

WAIT_SECONDS = 25.0
"""Wait of one claim. Proxies cut connections that are idle for 30 s."""
SHORTEST_WAIT_SECONDS = 1.0
"""Minimum time between claims without a task: a relay that is stopping responds at once."""
SIGNAL_SECONDS = 0.3
"""Maximum wait for the queue: a signal just before a wait is noticed only after it."""
ABORT_SECONDS = 15.0
"""Time limit for releasing killed tasks."""


class ClaimOptions(NamedTuple):
    """The tasks to claim, and the agent's identity."""

    agent_name: str
    worker: str
    task_types: tuple[str, ...] = ()
    created_by: str | None = None
    concurrency: int = 1


class _Ended(NamedTuple):
    execution: TaskExecution
    event: RunnerEvent


class _Stop:
    pass


_Item: TypeAlias = Claim | Exception | _Ended | _Stop


class Runner:
    """One run of the agent, until it is stopped."""

    def __init__(self, client: Client, claim_options: ClaimOptions, job: Job, *, warn: Callable[[str], None]) -> None:
        self._client, self._options, self._job, self._warn = client, claim_options, job, warn
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._slots = threading.Semaphore(claim_options.concurrency)
        self._executions: set[TaskExecution] = set()
        self._stopping = threading.Event()
        self.was_aborted = False
        """True if tasks were killed before they finished."""

    def stop(self) -> None:
        """Claim no more tasks, and end when all running ones are finished. A second call kills and releases them. Safe
        in signal handlers."""
        self._queue.put(_Stop())

    def run(self) -> Iterator[RunnerEvent | str]:
        """Run tasks until stopped. Yields events, and messages for users. Raises RelayError if the relay rejects this
        agent's claims."""
        threading.Thread(target=self._keep_claiming, name="claims", daemon=True).start()
        failure: Exception | None = None
        try:
            while self._executions or not self._stopping.is_set():
                match self._next(SIGNAL_SECONDS):
                    case Claim() as found:
                        yield self._begin(found)
                    case _Ended(execution, event):
                        self._executions.discard(execution)
                        self._slots.release()
                        yield event
                    case _Stop():
                        yield self._stop_or_abort()
                        if self.was_aborted:
                            break
                    case Exception() as error:
                        failure = failure or error
                        self._stopping.set()
                    case None:
                        pass
        finally:
            last = self._abort()  # Also when the caller closes the generator.
        yield from last
        if failure is not None:
            raise failure

    def _next(self, seconds: float) -> _Item | None:
        try:
            return self._queue.get(timeout=seconds)
        except Empty:
            return None

    def _stop_or_abort(self) -> str:
        if self._stopping.is_set():
            self.was_aborted = True
            return "Stopping at once: killing and releasing running tasks."
        self._stopping.set()
        running = len(self._executions)
        if not running:
            return "Stopping."
        tasks = "1 running task" if running == 1 else f"{running} running tasks"
        return f"Stopping: no new claims; waiting for {tasks} to finish. Interrupt again to kill and release."

    def _abort(self) -> list[RunnerEvent]:
        """End all remaining tasks within ABORT_SECONDS. Returns their events."""
        self._stopping.set()
        for execution in self._executions:
            execution.abort()
        events: list[RunnerEvent] = []
        limit_at = time.monotonic() + ABORT_SECONDS
        while (self._executions or not self._queue.empty()) and time.monotonic() < limit_at:
            item = self._next(SIGNAL_SECONDS)
            if isinstance(item, Claim):
                self._begin(item)
            elif isinstance(item, _Ended):
                self._executions.discard(item.execution)
                events.append(item.event)
        return events

    def _begin(self, found: Claim) -> RunnerEvent:
        execution = TaskExecution(found, self._job, warn=self._warn)
        self._executions.add(execution)
        threading.Thread(target=self._execute, args=(execution,), name="work", daemon=True).start()
        return execution.begun

    def _execute(self, execution: TaskExecution) -> None:
        try:
            event = execution.release() if self._stopping.is_set() else execution.run()
        except Exception as error:  # A bug or a full disk would fail the next task, too: end the run.
            event = execution.release()
            self._queue.put(error)
        self._queue.put(_Ended(execution, event))

    def _keep_claiming(self) -> None:
        pause, has_succeeded = FIRST_PAUSE_SECONDS, False
        while True:
            self._slots.acquire()
            if self._stopping.is_set():
                return
            began_at = time.monotonic()
            try:
                found = self._claim()
            except RelayError as error:
                if not _is_transient(error, has_succeeded=has_succeeded):
                    self._queue.put(error)
                    return
                self._warn(f"{error.message} Claiming again in {pause:g} s.")
                self._slots.release()
                self._stopping.wait(pause)
                pause = min(pause * 2, LAST_PAUSE_SECONDS)
            except Exception as error:
                self._queue.put(error)
                return
            else:
                pause, has_succeeded = FIRST_PAUSE_SECONDS, True
                if found is not None:
                    self._queue.put(found)
                    continue
                self._slots.release()
                self._stopping.wait(max(SHORTEST_WAIT_SECONDS - (time.monotonic() - began_at), 0))

    def _claim(self) -> Claim | None:
        options = self._options
        return claim(
            self._client,
            agent_name=options.agent_name,
            worker=options.worker,
            wait_seconds=WAIT_SECONDS,
            lease_seconds=self._job.lease_seconds,
            task_types=options.task_types,
            created_by=options.created_by,
        )


def _is_transient(error: RelayError, *, has_succeeded: bool) -> bool:
    """Return whether another claim may succeed: the relay is unavailable, or something else responds in its place. A
    rejection is final, unless earlier claims succeeded and the key is not the reason."""
    if isinstance(error, Unavailable | TooManyRequests):
        return True
    return has_succeeded and not isinstance(error, Unauthorized | Forbidden | SettingsError)

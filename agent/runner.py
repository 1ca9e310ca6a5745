"""The runner of an agent: claims tasks as long as it has a free place, has them worked on side by side, and stops in an
orderly way. What is done with one task is in `work`.

All that happens passes through one queue, which only the caller's thread reads; so it alone decides.
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
"""Of one claim; proxies cut connections on which nothing comes for 30 s."""
SHORTEST_WAIT_SECONDS = 1.0
"""Of a claim that finds nothing: relays that are about to stop answer at once."""
SIGNAL_SECONDS = 0.3
"""A signal that comes just before a thread begins to wait is noticed only when it has waited."""
ABORT_SECONDS = 15.0
"""For what was killed to be given back."""


class ClaimOptions(NamedTuple):
    """Which tasks to claim, and as whom."""

    agent_name: str
    worker: str
    task_types: tuple[str, ...] = ()
    created_by: str | None = None
    concurrency: int = 1


class _Ended(NamedTuple):
    work: TaskExecution
    event: RunnerEvent


class _Stop:
    pass


_Item: TypeAlias = Claim | Exception | _Ended | _Stop


class Runner:
    """One run, until it is stopped."""

    def __init__(self, client: Client, claim_options: ClaimOptions, job: Job, *, warn: Callable[[str], None]) -> None:
        self._client, self._wish, self._job, self._warn = client, claim_options, job, warn
        self._queue: SimpleQueue[_Item] = SimpleQueue()
        self._places = threading.Semaphore(claim_options.concurrency)
        self._works: set[TaskExecution] = set()
        self._stopping = threading.Event()
        self.was_aborted = False
        """Whether work was stopped before it was finished."""

    def stop(self) -> None:
        """Claim no more, and end when all work is finished; called again, kill what runs and give it back. Safe in
        signal handlers."""
        self._queue.put(_Stop())

    def run(self) -> Iterator[RunnerEvent | str]:
        """Work until stopped; gives what happens, and sentences for whoever watches. Raises RelayError if the relay
        does not let this agent claim."""
        threading.Thread(target=self._claim_on, name="claims", daemon=True).start()
        failure: Exception | None = None
        try:
            while self._works or not self._stopping.is_set():
                match self._next(SIGNAL_SECONDS):
                    case Claim() as found:
                        yield self._begin(found)
                    case _Ended(work, event):
                        self._works.discard(work)
                        self._places.release()
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
            last = self._abort()  # Also when nobody listens any more.
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
            return "Stopping at once: what runs is killed, and given back."
        self._stopping.set()
        if not self._works:
            return "Stopping."
        return f"Stopping: no new tasks; {len(self._works)} at work will be finished. Again to kill and give back."

    def _abort(self) -> list[RunnerEvent]:
        """End what is left, in a limited time; gives what happened."""
        self._stopping.set()
        for work in self._works:
            work.abort()
        events: list[RunnerEvent] = []
        limit_at = time.monotonic() + ABORT_SECONDS
        while (self._works or not self._queue.empty()) and time.monotonic() < limit_at:
            item = self._next(SIGNAL_SECONDS)
            if isinstance(item, Claim):
                self._begin(item)
            elif isinstance(item, _Ended):
                self._works.discard(item.work)
                events.append(item.event)
        return events

    def _begin(self, found: Claim) -> RunnerEvent:
        work = TaskExecution(found, self._job, warn=self._warn)
        self._works.add(work)
        threading.Thread(target=self._work, args=(work,), name="work", daemon=True).start()
        return work.begun

    def _work(self, work: TaskExecution) -> None:
        try:
            event = work.give_back() if self._stopping.is_set() else work.do()
        except Exception as error:  # A bug, or no place for its files: not to be repeated with the next task.
            event = work.give_back()
            self._queue.put(error)
        self._queue.put(_Ended(work, event))

    def _claim_on(self) -> None:
        pause, has_reached = FIRST_PAUSE_SECONDS, False
        while True:
            self._places.acquire()
            if self._stopping.is_set():
                return
            began_at = time.monotonic()
            try:
                found = self._claim()
            except RelayError as error:
                if not _may_pass(error, has_reached=has_reached):
                    self._queue.put(error)
                    return
                self._warn(f"{error.message} Claiming again in {pause:g} s.")
                self._places.release()
                self._stopping.wait(pause)
                pause = min(pause * 2, LAST_PAUSE_SECONDS)
            except Exception as error:
                self._queue.put(error)
                return
            else:
                pause, has_reached = FIRST_PAUSE_SECONDS, True
                if found is not None:
                    self._queue.put(found)
                    continue
                self._places.release()
                self._stopping.wait(max(SHORTEST_WAIT_SECONDS - (time.monotonic() - began_at), 0))

    def _claim(self) -> Claim | None:
        claim_options = self._wish
        return claim(
            self._client,
            agent_name=claim_options.agent_name,
            worker=claim_options.worker,
            wait_seconds=WAIT_SECONDS,
            lease_seconds=self._job.lease_seconds,
            task_types=claim_options.task_types,
            created_by=claim_options.created_by,
        )


def _may_pass(error: RelayError, *, has_reached: bool) -> bool:
    """Whether another claim may succeed: the relay is away, or something odd answers in its place. What it refuses is
    final, unless it took such claims before and does not say that the key is the reason."""
    if isinstance(error, Unavailable | TooManyRequests):
        return True
    return has_reached and not isinstance(error, Unauthorized | Forbidden | SettingsError)

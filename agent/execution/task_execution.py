"""Executes one claimed task: runs the command, keeps the lease, and delivers the result.

Retries delivery until the relay has the result, however long the relay is unavailable. The runner chooses the tasks.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from agent.execution.directory_removal import remove_tree
from agent.execution.placeholders import Template
from agent.execution.processes import KEPT_BYTES, Process
from agent.execution.task_directory import TaskDirectory, describe, environment_for
from agent.execution.task_results import (
    BODY_BYTES,
    LEAST_BODY_BYTES,
    TaskResult,
    collect_artifacts,
    plain,
    read_file,
    read_percent,
    result_body,
)
from agent.http.claims_client import Claim
from agent.http.client import LONGEST_PAUSE_SECONDS
from agent.http.error_responses import NoRelay
from models.commands.responses import make_title
from models.errors import (
    Forbidden,
    Invalid,
    NotFound,
    Rejected,
    RelayError,
    TooLarge,
    TooManyRequests,
    TooSlow,
    Unauthorized,
    Unavailable,
)
from models.timestamps import format_utc

TRY_AGAIN = 75
"""The exit code of a command for which another attempt may succeed: EX_TEMPFAIL of sysexits.h."""
BEATS_A_LEASE = 3
"""Heartbeats per lease, so that two may be lost."""
LONGEST_BEAT_SECONDS = 10.0
"""Maximum interval of heartbeats: the longest delay of a cancellation and of progress."""
PROGRESS_LENGTH = 1_000
ERROR_LENGTH = 4_000
QUESTION_BYTES = 20_000
FIRST_PAUSE_SECONDS = 1.0
LAST_PAUSE_SECONDS = 15.0
"""Maximum pause between two attempts to deliver."""
MAX_INVALID_RESPONSES = 20
"""Consecutive invalid responses to a result, some minutes' worth, after which delivery is given up. Retries for an
unavailable relay do not end."""
_GONE = frozenset({"claim_lost", "task_cancelled", "task_finished", "task_asking"})


class RunnerEvent(NamedTuple):
    """Something that happened to a task."""

    at: str
    event: str
    status: str
    message: str
    session_id: str
    task_id: str
    attempt: int


class Job(NamedTuple):
    """Settings for the execution of each task."""

    template: Template
    timeout_seconds: float
    lease_seconds: int
    environment: Mapping[str, str]
    key: str
    """The API key, which is withheld from commands."""
    passed: tuple[str, ...] = ()
    """Variables passed on although they are withheld by default."""


class TaskExecution:
    """The execution of one task."""

    def __init__(self, claim: Claim, job: Job, *, warn: Callable[[str], None]) -> None:
        self._claim, self._job, self._warn = claim, job, warn
        self._title = make_title(claim.task.get("title") or claim.task["description"])
        self._process: Process | None = None
        self._done = threading.Event()
        self._aborted = threading.Event()
        self._verdict: tuple[str, str] | None = None
        """The event and message that made the work pointless."""

    @property
    def begun(self) -> RunnerEvent:
        """The event of the beginning."""
        task = self._claim.task
        return self._event("claimed", "claimed", f"attempt {task['attempt']} of {task['max_attempts']}")

    def run(self) -> RunnerEvent:
        """Execute the task until the relay has the result or no longer needs it. Returns the final event."""
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
        folder: Path | None = None
        try:
            folder = Path(tempfile.mkdtemp(prefix="session-relay-task-")).resolve()
            return self._run_command(TaskDirectory(folder))
        except (Rejected, NoRelay) as error:
            event = "cancelled" if error.code == "task_cancelled" else "lost"
            return self._event(event, event, error.message)
        finally:
            self._done.set()
            if folder is not None:
                self._remove(folder)

    def abort(self) -> None:
        """Kill the command, release the task, and stop delivering. Repeatable, from any thread."""
        self._aborted.set()
        if self._process is not None:
            self._process.kill()

    def release(self) -> RunnerEvent:
        """Return the task to the queue, if the relay can be reached. Returns the event."""
        try:
            self._claim.release()
        except RelayError as error:
            return self._event("lost", "lost", f"not released, its lease will expire ({error.message})")
        return self._event("released", "pending", "released")

    def _run_command(self, task_directory: TaskDirectory) -> RunnerEvent:
        try:
            process = self._start(task_directory)
        except Invalid as error:
            return self._fail(" ".join(filter(None, [error.message, error.hint])))
        except (OSError, ValueError) as error:
            return self._fail(f"The agent's command cannot be started: {error}.")
        limit = self._job.timeout_seconds
        code = process.wait(limit)
        timed_out = code is None
        if timed_out:
            process.end()
            code = process.wait()
        if self._verdict is not None:
            event, message = self._verdict
            return self._event(event, event, message)
        if self._aborted.is_set():
            return self.release()
        if timed_out:
            return self._fail(f"The agent's command exceeded {limit:g} s and was stopped.", process, retryable=True)
        if code:
            return self._fail(
                f"The agent's command failed with exit code {code}.", process, retryable=code == TRY_AGAIN
            )
        if question := plain(read_file(task_directory.question, limit=QUESTION_BYTES)[0]):
            return self._ask(question, process)
        return self._complete(process, task_directory)

    def _remove(self, folder: Path) -> None:
        try:
            remove_tree(folder)
        except OSError as error:
            self._warn(f"Cannot remove all of {folder} of {self._title!r}: {error.strerror or error}.")

    def _start(self, task_directory: TaskDirectory) -> Process:
        task, job = self._claim.task, self._job
        values = describe(task, task_directory)
        command = job.template.fill(values)
        task_directory.prepare(task)
        environment = environment_for(values, job.environment, key=job.key, passed=job.passed)
        process = self._process = Process(command, input=task_directory.task, environment=environment)
        if self._aborted.is_set() or self._verdict:  # They may have been set before there was a process.
            process.kill()
        return process

    def _beat(self) -> None:
        """Keep the lease until the work is done and its result delivered."""
        pause = min(self._job.lease_seconds / BEATS_A_LEASE, LONGEST_BEAT_SECONDS)
        has_started, is_failing = False, False
        while True:
            try:
                lease = self._claim.heartbeat(**self._progress()) if has_started else self._claim.start()
            except RelayError as error:
                if _is_lost(error):
                    self._stop("lost", error.message)
                    return
                if not is_failing:
                    self._warn(f"Heartbeat for {self._title!r} failed: {error.message} Retrying.")
                is_failing = True
            else:
                has_started, is_failing = True, False
                if lease["cancelled"]:
                    self._stop("cancelled", "cancelled")
                    return
            if self._done.wait(pause):
                return

    def _progress(self) -> dict[str, Any]:
        text = plain(self._process.tail) if self._process else ""
        return {"progress": text[-PROGRESS_LENGTH:], "percent": read_percent(text)}

    def _stop(self, event: str, message: str) -> None:
        self._verdict = (event, message)
        if self._process is not None:
            self._process.end()

    def _complete(self, process: Process, task_directory: TaskDirectory) -> RunnerEvent:
        output, size = read_file(task_directory.result, limit=KEPT_BYTES)
        if not size:
            output, size = process.output, process.output_size
        artifacts, left_out = collect_artifacts(task_directory.artifacts, task_id=self._claim.task["task_id"])
        result = TaskResult(output=output, size=size, artifacts=artifacts, left_out=left_out)
        limit = BODY_BYTES
        while True:
            try:
                answer = self._deliver("complete", result_body(result, limit=limit))
            except TooLarge as error:
                if limit <= LEAST_BODY_BYTES:
                    return self._fail(f"The relay rejected the result: {error.message}", process)
                limit //= 2
                continue
            except Rejected as error:
                if _is_lost(error):
                    raise
                return self._fail(f"The relay rejected the result: {error.message}", process)
            files = f", {len(artifacts)} file{'s' * (len(artifacts) != 1)}" if artifacts else ""
            return self._event("finished", _status(answer), f"{size:,} bytes of output{files}")

    def _ask(self, question: str, process: Process) -> RunnerEvent:
        try:
            answer = self._deliver("ask", {"question": question})
        except TooLarge as error:
            return self._fail(f"The relay rejected the question: {error.message}", process)
        return self._event("asked", _status(answer), question)

    def _fail(self, reason: str, process: Process | None = None, *, retryable: bool = False) -> RunnerEvent:
        stderr = plain(process.errors, limit=ERROR_LENGTH) if process else ""
        error = f"{reason}\n\n{stderr}" if stderr else reason
        answer = self._deliver("fail", {"error": error, "retryable": retryable})
        return self._event("failed", _status(answer), reason)

    def _deliver(self, action: str, content: dict[str, Any] | bytes) -> dict[str, Any] | None:
        """Retry until the submission has taken effect; None if aborted before. Raises NoRelay after
        MAX_INVALID_RESPONSES."""
        body = content if isinstance(content, bytes) else msgspec.json.encode(content)
        pause, has_warned, invalid = FIRST_PAUSE_SECONDS, False, 0
        while True:
            try:
                answer = self._claim.submit(action, body)
            except (Unavailable, TooManyRequests, TooSlow, TooLarge) as error:
                if isinstance(error, TooLarge) and len(body) > LEAST_BODY_BYTES:
                    raise
                if not has_warned:
                    self._warn(f"Cannot deliver the result of {self._title!r} yet: {error.message} Retrying.")
                has_warned = True
                invalid = invalid + 1 if isinstance(error, NoRelay | TooLarge) else 0
                if invalid == MAX_INVALID_RESPONSES:
                    raise
                if isinstance(error, TooManyRequests):
                    pause = max(pause, min(error.retry_after_seconds, LONGEST_PAUSE_SECONDS))
            else:
                if answer is not None:
                    return answer
            if self._aborted.wait(pause):
                return None
            pause = min(pause * 2, LAST_PAUSE_SECONDS)

    def _event(self, event: str, status: str, detail: str) -> RunnerEvent:
        task = self._claim.task
        return RunnerEvent(
            at=format_utc(datetime.now(UTC)),
            event=event,
            status=status,
            message=f"{self._title}: {detail}",
            session_id=task["session_id"],
            task_id=task["task_id"],
            attempt=task["attempt"],
        )


def _is_lost(error: RelayError) -> bool:
    """Return whether the claim can no longer be used."""
    return error.code in _GONE or isinstance(error, NotFound | Unauthorized | Forbidden)


def _status(answer: dict[str, Any] | None) -> str:
    return "unknown" if answer is None else str(answer["status"])

"""The process reaper of a command: it reports the exit, and leaves no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.execution import process_reaper
from agent.execution.processes import KEPT_BYTES, Process
from tests.support.project import IS_LONG

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes in /proc")

SLEEP = "import time; time.sleep(60)"
WITH_CHILD = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-S", "-c", {SLEEP!r}], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def start(folder: Path, *command: str) -> Process:
    """Start a command with an empty standard input."""
    input = folder / "input"
    input.touch()
    return Process(command, input=input, environment=dict(os.environ))


def child_of(process: Process) -> int:
    """Return the process that WITH_CHILD has started."""
    limit_at = time.monotonic() + 10
    while not process.output.endswith(b"\n"):
        assert time.monotonic() < limit_at
        time.sleep(0.01)
    return int(process.output)


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["true"], 0, ""),
        (["sh", "-c", "exit 75"], 75, ""),
        (["sh", "-c", "kill -9 $$"], 128 + 9, ""),
        (
            ["/no/such/program"],
            process_reaper.NOT_FOUND,
            "/no/such/program cannot be started: No such file or directory.",
        ),
        (["/etc/passwd"], process_reaper.CANNOT_RUN, "/etc/passwd cannot be started: Permission denied."),
    ],
)
def test_the_exit_code_is_that_of_the_command(tmp_path: Path, command: list[str], code: int, said: str) -> None:
    process = start(tmp_path, *command)
    assert process.wait(20) == code
    assert process.errors.decode().strip() == said


def test_it_always_ends_processes_that_have_been_reparented(tmp_path: Path) -> None:
    # For a moment, a process is listed neither below its old parent nor below its new one.
    for _ in range(20 if IS_LONG else 8):
        process = start(tmp_path, sys.executable, "-S", "-c", WITH_CHILD)
        child = child_of(process)
        process.end()
        assert process.wait(20) == 128 + signal.SIGTERM
        assert not Path(f"/proc/{child}").exists()


def test_an_urgent_stop_kills_without_asking(tmp_path: Path) -> None:
    stubborn = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{WITH_CHILD}"
    process = start(tmp_path, sys.executable, "-S", "-c", stubborn)
    child = child_of(process)
    assert process.wait(0.1) is None
    began_at = time.monotonic()
    process.kill()
    assert process.wait(20) == 128 + signal.SIGKILL
    assert time.monotonic() - began_at < process_reaper.GRACE_SECONDS
    assert not Path(f"/proc/{child}").exists()


def test_it_ends_the_processes_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from agent.execution.processes import Process
process = Process([sys.executable, "-S", "-c", {WITH_CHILD!r}], input=Path("/dev/null"), environment={{}})
while not process.output: time.sleep(0.01)
print(process.output.decode(), flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        child = Path(f"/proc/{int(starter.stdout.readline())}")
        assert child.exists()
        starter.kill()
    limit_at = time.monotonic() + 20
    while child.exists():
        assert time.monotonic() < limit_at
        time.sleep(0.02)


def test_no_more_output_is_kept_than_can_be_used(tmp_path: Path) -> None:
    code = f"import sys; sys.stdout.write('x' * {KEPT_BYTES + 7}); sys.stderr.write('y' * 9_000 + 'end')"
    process = start(tmp_path, sys.executable, "-c", code)
    assert process.wait(20) == 0
    assert (len(process.output), process.output_size) == (KEPT_BYTES, KEPT_BYTES + 7)
    assert process.errors.endswith(b"yend")
    assert len(process.errors) == len(process.tail) == 4_000

"""The supervisor with real child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from redis import Redis

from models.process.supervision import Child, ChildProcess, Supervisor, UnexpectedExit
from tests.support.project import ROOT

LIMIT_SECONDS = 20.0
POLITE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('{0} ends')))
print('{0} is up', flush=True)
time.sleep(600)
"""
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)
WITH_CHILD = (
    "import subprocess, sys, time; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, "
    "flush=True); time.sleep(600)"
)
PARENT = """
import sys, time
from models.process.supervision import Child, ChildProcess
child = "from models.process.parent_death import exit_with_parent; import time; exit_with_parent();"
child += "print('up', flush=True); time.sleep(600)"
print(ChildProcess(Child(name="a", command=(sys.executable, "-c", child), environment={})).pid, flush=True)
time.sleep(600)
"""

# Signals are sent as soon as the child exists, and its siblings have copies of this process' pipes.
FORKING = """
import os, signal, sys, time
from pathlib import Path
from models.process.parent_death import exit_with_parent
from models.process.supervision import Child, Supervisor

def tell(line):
    os.write(1, f"{line}\\n".encode())  # In one piece.

def wait():
    exit_with_parent()
    time.sleep(600)

def work():
    tell(f"up {os.getpid()} {os.getppid()} {os.getpgid(0)} {Path('/proc/self/comm').read_text().strip()}")
    wait()

def fail():
    raise ValueError("from the child")

signal.signal(signal.SIGTERM, lambda *_: tell("the handler of the parent"))
supervisor = Supervisor(on_death=lambda death: tell(f"death {death.child.name} {death.reason}"))
for name in ("a", "b", "c"):
    supervisor.start(Child(name=name, work=work))
supervisor.start(Child(name="failing", work=fail))
supervisor.start(Child(name="leaving", work=lambda: sys.exit(3)))
supervisor.start(Child(name="stopped", work=wait))
os.kill(supervisor.pid("stopped"), signal.SIGTERM)
while True:
    supervisor.tend()
    time.sleep(0.01)
"""


@pytest.fixture
def deaths() -> list[UnexpectedExit]:
    return []


@pytest.fixture
def supervisor(deaths: list[UnexpectedExit]) -> Iterator[Supervisor]:
    supervisor = Supervisor(on_death=deaths.append)
    yield supervisor
    supervisor.stop(hurry=lambda: True)


def python(name: str, code: str, *, log: Path | None = None, stop_timeout_seconds: float = 10) -> Child:
    return Child(
        name=name,
        command=(sys.executable, "-c", code),
        environment=os.environ,
        log=log,
        stop_timeout_seconds=stop_timeout_seconds,
    )


def sleeping(name: str) -> Child:
    return Child(name=name, command=("sleep", "600"), environment=os.environ)


def wait_until(condition: Callable[[], object], tend: Callable[[], None] = lambda: None) -> None:
    limit_at = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < limit_at
        tend()
        time.sleep(0.01)


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_killed_child_is_restarted_and_its_exit_reported(
    supervisor: Supervisor, deaths: list[UnexpectedExit]
) -> None:
    supervisor.start(sleeping("a"))
    first = supervisor.pid("a")
    assert first
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: supervisor.pid("a") not in (first, None), supervisor.tend)
    assert [(death.child.name, death.reason, death.failures) for death in deaths] == [("a", "was ended by SIGKILL", 1)]
    assert not psutil.pid_exists(first), "the process was not reaped"


def test_a_child_that_keeps_failing_is_restarted_with_growing_delay(
    supervisor: Supervisor, deaths: list[UnexpectedExit]
) -> None:
    supervisor.start(python("a", "raise SystemExit(3)"))
    supervisor.start(Child(name="b", command=("/does/not/exist",), environment={}))
    wait_until(lambda: supervisor.failures("a") >= 3 and supervisor.failures("b") >= 3, supervisor.tend)
    for name, reason in (("a", "ended with exit code 3"), ("b", "cannot be started: ")):
        own = [death for death in deaths if death.child.name == name][:3]
        assert [death.restart_in_seconds for death in own] == [0.1, 0.2, 0.4]
        assert all(death.reason.startswith(reason) for death in own)


def test_children_are_stopped_in_reverse_order_and_not_restarted(supervisor: Supervisor, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for name in ("first", "second", "third"):
        supervisor.start(python(name, POLITE.format(name), log=log))
        wait_until(lambda name=name: f"{name} is up" in log.read_text())  # type: ignore[misc]
    pids = [supervisor.pid(name) or 0 for name in ("first", "second", "third")]
    supervisor.stop()
    supervisor.tend()
    assert [line for line in log.read_text().splitlines() if "ends" in line] == [
        "third ends",
        "second ends",
        "first ends",
    ]
    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.parametrize(("stop_timeout_seconds", "hurry"), [(0.2, False), (600, True)])
def test_a_child_that_ignores_sigterm_is_killed_after_its_timeout_or_at_once_if_urgent(
    tmp_path: Path, stop_timeout_seconds: float, hurry: bool
) -> None:
    log = tmp_path / "log"
    running = ChildProcess(python("a", STUBBORN, log=log, stop_timeout_seconds=stop_timeout_seconds))
    wait_until(lambda: "up" in log.read_text())
    running.stop(hurry=lambda: hurry)
    assert running.ended() == "was ended by SIGKILL"
    assert not psutil.pid_exists(running.pid)


def test_processes_started_by_a_child_end_with_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    running = ChildProcess(python("a", WITH_CHILD, log=log))
    wait_until(lambda: log.read_text().endswith("\n"))
    grandchild = int(log.read_text())
    assert alive(grandchild)
    os.kill(running.pid, signal.SIGKILL)
    wait_until(running.ended)
    wait_until(lambda: not alive(grandchild))


def test_a_child_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    with parent.stdout as lines:
        child = int(lines.readline())
        assert lines.readline() == "up\n"
        assert alive(child)
        parent.kill()
        parent.wait()
        wait_until(lambda: not alive(child))


@pytest.mark.skipif(sys.platform != "linux", reason="processes are copied on Linux only")
def test_copies_of_a_process_are_supervised_like_commands() -> None:
    pipe = subprocess.PIPE
    parent = subprocess.Popen([sys.executable, "-c", FORKING], cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
    assert parent.stdout
    assert parent.stderr
    with parent.stdout as lines, parent.stderr as errors:
        told: list[str] = []

        def read(*expected: str, up: int = 0) -> list[list[str]]:
            """Read lines until the expected ones and so many children have come. Returns what these children told."""
            while True:
                children = [line.split()[1:] for line in told if line.startswith("up ")]
                if len(children) >= up and all(line in told for line in expected):
                    return children
                line = lines.readline()
                assert line
                told.append(line.strip())

        children = read(
            "death failing ended with exit code 1",
            "death leaving ended with exit code 3",
            "death stopped was ended by SIGTERM",
            up=3,
        )
        assert [(ppid, group) for _, ppid, group, _ in children] == [(str(parent.pid), pid) for pid, *_ in children]
        assert {name for *_, name in children} == {"a", "b", "c"}
        os.kill(int(children[0][0]), signal.SIGKILL)
        pids = [int(pid) for pid, *_ in read(f"death {children[0][3]} was ended by SIGKILL", up=4)[1:]]
        assert all(map(alive, pids))
        parent.kill()
        parent.wait()
        wait_until(lambda: not any(map(alive, pids)))
        assert "the handler of the parent" not in told
        assert "ValueError: from the child" in errors.read()


STOPPED_EARLY = """
import os, signal, sys
from redis import Redis
from worker.worker_process import QUEUE, AllowedJobsWorker

class StoppedEarly(AllowedJobsWorker):
    def subscribe(self):
        os.kill(os.getpid(), signal.SIGTERM)
        super().subscribe()

StoppedEarly([QUEUE], connection=Redis.from_url(sys.argv[1])).work()
"""


def test_a_worker_that_is_stopped_at_its_start_leaves_no_registration_behind(redis: Redis, redis_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STOPPED_EARLY, redis_url], cwd=ROOT, check=False, timeout=LIMIT_SECONDS
    )
    assert done.returncode == 0
    assert redis.scard("rq:workers") == 0

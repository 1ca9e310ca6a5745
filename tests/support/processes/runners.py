"""Runners as the tests start them: `session-cli agent run` with a command of a few lines of Python."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tests.support.processes.command_line import PROGRAM, CommandLine
from tests.support.processes.stack import Payload, new_id, wait_for

_SCRIPTS = tempfile.TemporaryDirectory(prefix="agents-of-tests-")


class RunningAgent:
    """One run; its events are read as they come."""

    def __init__(self, cli: CommandLine, *arguments: str, command: list[str]) -> None:
        self.events: list[Payload] = []
        self.said: list[str] = []
        self._process = subprocess.Popen(
            [PROGRAM, "agent", "run", *arguments, "--json", "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cli.folder,
            env=cli.environment,
        )
        self._is_asked = False
        readers = (self._read_events, self._read_sentences)
        self._readers = [threading.Thread(target=reader, daemon=True) for reader in readers]
        for reader in self._readers:
            reader.start()

    def wait_for_event(self, name: str, *, count: int = 1, seconds: float = 30) -> list[Payload]:
        """All events of this name, once there are so many."""

        def found() -> list[Payload]:
            return [event for event in self.events if event["event"] == name]

        wait_for(
            lambda: len(found()) >= count, seconds=seconds, what=f"{count} {name} events, got {self.events} {self.said}"
        )
        return found()

    def wait_until_ready(self) -> None:
        """Wait until it claims."""
        wait_for(lambda: self.said or self._process.poll() is not None, what="first message")
        wait_for(
            lambda: any("Waiting for tasks" in line for line in self.said),
            seconds=10,
            what=f"waiting for tasks, output: {self.said}",
        )

    def stop(self) -> None:
        """Ask it to stop, as Ctrl-C does; asked again, it stops at once."""
        # Of two signals of one kind the second may not be noticed.
        self._process.send_signal(signal.SIGTERM if self._is_asked else signal.SIGINT)
        self._is_asked = True

    def kill(self) -> None:
        """End it as kill -9 does."""
        self._process.kill()
        self._process.wait()

    def end(self) -> int:
        """Its exit code, once it has ended by itself."""
        code = self._process.wait(60)
        for reader in self._readers:
            reader.join(10)
        assert "Traceback" not in "".join(self.said)
        return code

    def close(self) -> None:
        """Stop it whatever it does, and let go of its pipes. It must obey."""
        obeys = True
        if self._process.poll() is None:
            self.stop()
            self.stop()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                obeys = False
                self.kill()
        for reader in self._readers:
            reader.join(10)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        assert obeys, self.said

    def _read_events(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.events.append(msgspec.json.decode(line))

    def _read_sentences(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.said.append(line)


@contextmanager
def running_agent(cli: CommandLine, *arguments: str, command: list[str]) -> Iterator[RunningAgent]:
    """A runner, until the end of the block."""
    agent = RunningAgent(cli, *arguments, command=command)
    try:
        agent.wait_until_ready()
        yield agent
    finally:
        agent.close()


def python(code: str, *arguments: str) -> list[str]:
    """A command that runs this code, in which there are no placeholders; there may be some in the arguments."""
    script = Path(_SCRIPTS.name, f"{new_id('agent')}.py")
    script.write_text(f"import json, os, sys, time, subprocess\n{code}")
    return [sys.executable, str(script), *arguments]


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be noticed does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False

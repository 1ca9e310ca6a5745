"""Agent runners of tests: `session-cli agent run` with a command of a few lines of Python."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

import msgspec

from tests.support.processes.command_line import CommandLine
from tests.support.processes.forked_cli import ForkedCli
from tests.support.processes.stack import Payload, new_id, wait_for

_SCRIPTS = tempfile.TemporaryDirectory(prefix="agents-of-tests-")


class RunningAgent:
    """One run, whose events are read as they come."""

    def __init__(self, cli: CommandLine, *arguments: str, command: list[str]) -> None:
        self.events: list[Payload] = []
        self.said: list[str] = []
        with ExitStack() as passed:
            (self._stdout, out), (self._stderr, err) = (_pipe(passed) for _ in range(2))
            nothing = passed.enter_context(Path(os.devnull).open())
            self._process = ForkedCli(
                *(nothing.fileno(), out, err),
                arguments=["agent", "run", *arguments, "--json", "--", *command],
                environment=cli.environment,
                folder=cli.folder,
            )
        self._is_asked = False
        readers = (self._read_events, self._read_sentences)
        self._readers = [threading.Thread(target=reader, daemon=True) for reader in readers]
        for reader in self._readers:
            reader.start()

    def wait_for_event(self, name: str, *, count: int = 1, seconds: float = 30) -> list[Payload]:
        """Return all events of this name, once there are so many."""

        def found() -> list[Payload]:
            return [event for event in self.events if event["event"] == name]

        wait_for(
            lambda: len(found()) >= count, seconds=seconds, what=f"{count} {name} events, got {self.events} {self.said}"
        )
        return found()

    def wait_until_ready(self) -> None:
        """Wait until it claims tasks."""
        wait_for(lambda: self.said or self._process.poll() is not None, what="first message")
        wait_for(
            lambda: any("Waiting for tasks" in line for line in self.said),
            seconds=10,
            what=f"waiting for tasks, output: {self.said}",
        )

    def stop(self) -> None:
        """Send an interrupt like Ctrl-C. A second one stops it at once."""
        # The second of two pending signals of one kind may be lost.
        self._process.send_signal(signal.SIGTERM if self._is_asked else signal.SIGINT)
        self._is_asked = True

    def kill(self) -> None:
        """Kill it like kill -9."""
        self._process.kill()

    def end(self) -> int:
        """Return its exit code, once it has ended by itself."""
        code = self._process.wait(60)
        for reader in self._readers:
            reader.join(10)
        assert "Traceback" not in "".join(self.said)
        return code

    def close(self) -> None:
        """Stop it in any case, and close its pipes. Fails if it does not stop."""
        obeys = True
        if self._process.poll() is None:
            self.stop()
            self.stop()
            try:
                self._process.wait(30)
            except AssertionError:
                obeys = False
                self.kill()
        for reader in self._readers:
            reader.join(10)
        self._stdout.close()
        self._stderr.close()
        assert obeys, self.said

    def _read_events(self) -> None:
        for line in self._stdout:
            self.events.append(msgspec.json.decode(line))

    def _read_sentences(self) -> None:
        for line in self._stderr:
            self.said.append(line)


def _pipe(passed: ExitStack) -> tuple[TextIO, int]:
    """Return the end to read, and the one to pass on, which is closed with `passed`."""
    reading, writing = os.pipe()
    passed.callback(os.close, writing)
    return os.fdopen(reading, encoding="utf-8"), writing


@contextmanager
def running_agent(cli: CommandLine, *arguments: str, command: list[str]) -> Iterator[RunningAgent]:
    """Run an agent within the block."""
    agent = RunningAgent(cli, *arguments, command=command)
    try:
        agent.wait_until_ready()
        yield agent
    finally:
        agent.close()


def python(code: str, *arguments: str) -> list[str]:
    """Return a command that runs this code. The code must not contain placeholders; the arguments may."""
    script = Path(_SCRIPTS.name, f"{new_id('agent')}.py")
    script.write_text(f"import json, os, sys, time, subprocess\n{code}")
    return [sys.executable, str(script), *arguments]


def is_alive(pid: int) -> bool:
    """Return whether a process runs and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False

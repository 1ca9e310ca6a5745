"""session-cli in an environment of its own: its commands in this process, or its launcher as people run it, piped or in
a terminal."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import chdir
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO
from unittest.mock import patch

import msgspec

from cli.main import main
from tests.support.processes.forked_cli import ForkedCli
from tests.support.processes.pseudo_terminal import PseudoTerminal
from tests.support.project import ROOT

Environment = Mapping[str, str]

PROGRAM = str(ROOT / "bin" / "session-cli")


class Done(NamedTuple):
    """The result of a run."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The output, parsed as JSON."""
        return msgspec.json.decode(self.out)

    @property
    def rows(self) -> list[dict[str, str]]:
        """The output, parsed as TSV."""
        heading, *lines = self.out.splitlines()
        names = heading.split("\t")
        return [dict(zip(names, line.split("\t"), strict=True)) for line in lines]

    @property
    def findings(self) -> dict[str, dict[str, str]]:
        """The findings of the doctor, by check."""
        return {row["check"]: row for row in self.rows}


class CommandLine:
    """Runs of session-cli for one relay."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.environment = {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "EMBEDDINGS": "off",
            "HOME": str(folder),
            "TERM": "xterm-256color",
            "LANG": "C.UTF-8",
            "PAGER": "cat",
            **environment,
        }

    def run(
        self, *arguments: str, input: str | bytes = b"", code: int = 0, environment: Environment | None = None
    ) -> Done:
        """Run its commands with pipes, in this process. Fails for another exit code. Unhandled errors are raised."""
        streams = io.BytesIO(input.encode() if isinstance(input, str) else input), io.BytesIO(), io.BytesIO()
        stdin, stdout, stderr = (io.TextIOWrapper(stream, encoding="utf-8") for stream in streams)
        ended = self._run(arguments, (stdin, stdout, stderr), environment)
        result = Done(ended, streams[1].getvalue().decode(), streams[2].getvalue().decode())
        assert result.code == code, result
        return result

    def drawn(
        self,
        *arguments: str,
        typed: str = "",
        columns: int = 80,
        code: int = 0,
        environment: Environment | None = None,
    ) -> str:
        """Run its commands in this process as if in a terminal, without a pager. Returns what is shown: data and
        messages in their order. Fails for another exit code."""
        shown = io.BytesIO()
        keyboard, screen = _Tty(io.BytesIO(typed.encode()), encoding="utf-8"), _Tty(shown, encoding="utf-8")
        size = {"COLUMNS": str(columns), "LINES": "1000"}
        ended = self._run(arguments, (keyboard, screen, screen), {**size, **(environment or {})})
        text = shown.getvalue().decode()
        assert ended == code, text
        return text

    def _run(
        self, arguments: tuple[str, ...], streams: tuple[TextIO, TextIO, TextIO], environment: Environment | None
    ) -> int:
        stdin, stdout, stderr = streams
        with (
            patch.dict(os.environ, {**self.environment, **(environment or {})}, clear=True),
            patch.multiple(sys, argv=[PROGRAM, *arguments], stdin=stdin, stdout=stdout, stderr=stderr),
            chdir(self.folder),
        ):
            ended = main()
            for stream in (stdout, stderr):
                stream.flush()
        return ended

    def launch(
        self, *arguments: str, input: str | bytes = b"", code: int = 0, environment: Environment | None = None
    ) -> Done:
        """Run its launcher with pipes, as people do. Fails for another exit code."""
        done = subprocess.run(
            [PROGRAM, *arguments],
            input=input.encode() if isinstance(input, str) else input,
            capture_output=True,
            cwd=self.folder,
            env={**self.environment, **(environment or {})},
            timeout=120,
            check=False,
        )
        result = Done(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert result.code == code, result
        assert "Traceback" not in result.err
        return result

    def shell(self, line: str) -> Done:
        """Run a line of bash with session-cli on the PATH. Returns the exit code of its last command."""
        path = os.pathsep.join([str(ROOT / "bin"), self.environment["PATH"]])
        done = subprocess.run(
            ["bash", "-c", line],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env={**self.environment, "PATH": path},
            timeout=120,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def terminal(
        self, *arguments: str, columns: int = 80, lines: int = 24, environment: Environment | None = None
    ) -> PseudoTerminal:
        """Run its commands in a terminal, in a forked process."""
        start = partial(
            ForkedCli,
            arguments=arguments,
            environment={**self.environment, **(environment or {})},
            folder=self.folder,
        )
        return PseudoTerminal(start, columns=columns, lines=lines)

    def launched_terminal(self, *arguments: str, columns: int = 80) -> PseudoTerminal:
        """Run its launcher in a terminal, as people do."""

        def start(terminal: int) -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [PROGRAM, *arguments],
                stdin=terminal,
                stdout=terminal,
                stderr=terminal,
                env=self.environment,
                cwd=self.folder,
                start_new_session=True,
            )

        return PseudoTerminal(start, columns=columns)

    def shown(
        self,
        *arguments: str,
        columns: int = 80,
        lines: int = 200,
        code: int = 0,
        environment: Environment | None = None,
    ) -> str:
        """Run it in a terminal. Returns what is shown. Fails for another exit code."""
        ended, text = self.terminal(*arguments, columns=columns, lines=lines, environment=environment).end()
        assert ended == code, text
        assert "Traceback" not in text
        return text


class _Tty(io.TextIOWrapper):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def json_lines(text: str) -> Iterable[Any]:
    """Parse JSON with one value a line."""
    return [msgspec.json.decode(line) for line in text.splitlines()]

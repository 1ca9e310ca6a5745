"""Long output page by page: through a pager as soon as it is longer than the screen."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress

_PADDING = re.compile(r"(?<! ) ++((?:\x1b\[[0-9;]*m)*+)(?=\n)")
"""Tables are filled up to their right edge, which wraps when the window is made narrower, and is in what is copied."""


class PagerClosed(Exception):
    """The reader has closed the pager; the rest is not wanted."""


class Paged:
    """A text stream to standard output. What fits on the screen is written straight; for more a pager is started."""

    def __init__(self, environment: Mapping[str, str], *, enabled: bool) -> None:
        self._command = _pager(environment) if enabled else []
        self._environment = environment
        self._height = shutil.get_terminal_size().lines
        self._held: list[str] = []
        self._lines = 0
        self._process: subprocess.Popen[str] | None = None

    def write(self, text: str) -> int:
        """Raises Left when nobody reads on."""
        text = _PADDING.sub(r"\1", text)
        if not self._command:
            return sys.stdout.write(text)
        self._held.append(text)
        self._lines += text.count("\n")
        if self._process is None and self._lines >= self._height - 1:
            self._start()
        if self._process is not None:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Pass on what can be passed on already."""
        if self._process is None:
            if not self._command:
                sys.stdout.flush()
            return
        assert self._process.stdin is not None
        try:
            self._process.stdin.write("".join(self._held))
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PagerClosed from None
        finally:
            self._held.clear()

    def close(self) -> None:
        """Write what is left, and wait until the reader is done."""
        if self._process is None:
            sys.stdout.write("".join(self._held))
            sys.stdout.flush()
            return
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        while True:
            try:
                self._process.wait()
            except KeyboardInterrupt:  # It goes to the pager, too, which knows what to do with it.
                continue
            return

    def _start(self) -> None:
        # As git does: quit if it fits, show colours, leave the screen as it is.
        environment = {"LESS": "FRX", **self._environment}
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the person's own pager
                self._command,
                stdin=subprocess.PIPE,
                env=environment,
                encoding=sys.stdout.encoding,
                errors="backslashreplace",
            )
        except OSError:
            self._command = []
            sys.stdout.write("".join(self._held))
            self._held.clear()


def _pager(environment: Mapping[str, str]) -> list[str]:
    if environment.get("TERM", "dumb") == "dumb":
        return []
    wanted = environment.get("PAGER")
    if wanted is None:
        found = shutil.which("less") or shutil.which("more")
        return [found] if found else []
    try:
        command = shlex.split(wanted)
    except ValueError:
        return []
    return [] if command == ["cat"] or os.name == "nt" else command

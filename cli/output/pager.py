"""Pipes output through a pager once it is longer than the screen."""

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
"""Trailing padding of table rows. It would wrap in a narrowed window, and end up in copied text."""


class PagerClosed(Exception):
    """The user has quit the pager before the end."""


class Paged:
    """A text stream to stdout that starts a pager for output that does not fit on the screen."""

    def __init__(self, environment: Mapping[str, str], *, enabled: bool) -> None:
        self._command = _pager(environment) if enabled else []
        self._environment = environment
        self._height = shutil.get_terminal_size().lines
        self._held: list[str] = []
        self._lines = 0
        self._process: subprocess.Popen[str] | None = None

    def write(self, text: str) -> int:
        """Write text. Raises PagerClosed if the pager has been quit."""
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
        """Pass buffered text to the pager, if it runs."""
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
        """Write the remaining text, and wait for the pager to exit."""
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
            except KeyboardInterrupt:  # The pager receives it as well, and decides.
                continue
            return

    def _start(self) -> None:
        # As git does: F quits if the output fits, R shows colours, X leaves the screen as it is.
        environment = {"LESS": "FRX", **self._environment}
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the user's own pager
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

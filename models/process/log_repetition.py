"""Decides which of many equal log lines are written: the first, and then, once a minute, how many there were more."""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass

WINDOW_SECONDS = 60
LOOK_SECONDS = 1.0
"""Time between two looks which windows are over."""
TROUBLE = "trouble"
"""The key in `extra` for the cause by which a repeated warning is recognized, if its text differs each time."""
PER_GROUP = 10
"""Lines with different texts, from one place in the code, per window."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line that may repeat others."""

    logger: str
    level: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """Lines that were counted instead of written."""

    line: Line
    """The last one."""
    count: int
    seconds: int

    @property
    def message(self) -> str:
        """The line about them."""
        times = "once more" if self.count == 1 else f"{self.count:,} more times"
        return f"{self.line.text} This happened {times} in {self.seconds} s."


@dataclass(kw_only=True)
class _Window:
    most: int
    left: int
    """Lines that may still be written."""
    began_at: float
    count: int = 0
    last: Line | None = None
    """The last one that was counted."""


class Repetition:
    """The lines of the last minute. Not thread-safe."""

    def __init__(self) -> None:
        self._windows: dict[Hashable, _Window] = {}
        """By key or group. Their number is bounded, as each new key needs room in its group."""
        self._look_at = 0.0

    def admits(self, line: Line, *, key: Hashable, group: Hashable, most: int = 1, most_in_group: int) -> bool:
        """Returns whether a line is to be written: one of the first `most` with its key, and of the first
        `most_in_group` keys of its group, in a window. Otherwise counts it."""
        window = self._windows.get(key)
        if window is None:
            window = self._window(group, most_in_group)
            if window.left > 0:
                window.left -= 1
                window = self._window(key, most)
        if window.left > 0:
            window.left -= 1
            return True
        window.count += 1
        window.last = line
        return False

    def due(self) -> list[Repeated]:
        """Returns the lines that were counted in windows that are over. Looks once in LOOK_SECONDS. While a line goes
        on repeating, it is only counted; after a window without it, it is written again."""
        now = time.monotonic()
        if now < self._look_at:
            return []
        self._look_at = now + LOOK_SECONDS
        over = [key for key, window in self._windows.items() if now - window.began_at >= WINDOW_SECONDS]
        return [counted for key in over if (counted := self._renew(key, now))]

    def end(self) -> list[Repeated]:
        """Returns all lines that were counted, and forgets them."""
        now = time.monotonic()
        return [counted for key in list(self._windows) if (counted := self._renew(key, now))]

    def _window(self, key: Hashable, most: int) -> _Window:
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window(most=most, left=most, began_at=time.monotonic())
        return window

    def _renew(self, key: Hashable, now: float) -> Repeated | None:
        window = self._windows.pop(key)
        if window.last is None:
            return None
        self._windows[key] = _Window(most=window.most, left=window.most if window.most > 1 else 0, began_at=now)
        return Repeated(line=window.last, count=window.count, seconds=max(1, round(now - window.began_at)))

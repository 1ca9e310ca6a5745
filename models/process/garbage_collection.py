"""Python's collector of garbage, as long-running processes want it."""

from __future__ import annotations

import gc

THRESHOLDS = (7_000, 10, 10)
"""Instead of 700, 10 and 10. With much more, what refused requests leave, each perhaps with its body, adds up."""


def collect_seldom() -> None:
    """Let the collector look seldom, and not at what is there already. It looks at all of a large body many times while
    that is decoded, and there is hardly anything for it to find."""
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)

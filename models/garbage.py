"""Python's collector of garbage, as long-running processes want it."""

from __future__ import annotations

import gc

THRESHOLDS = (50_000, 20, 20)
"""Instead of 700, 10 and 10."""


def collect_seldom() -> None:
    """Let the collector look seldom, and not at what is there already. It looks at all of a large body many times while
    that is decoded, and there is hardly anything for it to find."""
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)

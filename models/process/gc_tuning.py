"""Tunes Python's garbage collector for long-running processes."""

from __future__ import annotations

import gc

THRESHOLDS = (7_000, 10, 10)
"""Python uses 700, 10 and 10. With far higher values, garbage of rejected requests and their bodies accumulates."""


def collect_nothing() -> None:
    """Stop the collector until `collect_seldom`: imports make many objects, and hardly any garbage."""
    gc.disable()


def collect_seldom() -> None:
    """Run the collector less often, and exclude existing objects.

    While a large body is decoded, the collector scans all of it many times and finds hardly any garbage.
    """
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    gc.enable()

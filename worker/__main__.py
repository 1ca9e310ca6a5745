"""`python -m worker`: the worker processes and a sweeper, under a supervisor."""

from __future__ import annotations

import sys

from models.process.gc_tuning import collect_nothing, collect_seldom
from models.process.missing_packages import explained_if_missing


def _run() -> int:
    collect_nothing()
    from worker.supervisor import main  # The collector would take a quarter of the start while this is imported.

    collect_seldom()
    return main()


if __name__ == "__main__":
    with explained_if_missing():
        sys.exit(_run())

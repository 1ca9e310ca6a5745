"""`python -m relay`: the ingest alone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from models.process.missing_packages import explained_if_missing

with explained_if_missing():
    from relay.processes import main

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.applications import Starlette

    from models.settings import Settings


def _load() -> Callable[[Settings], Starlette]:
    from relay.app import create_relay

    return create_relay


if __name__ == "__main__":
    with explained_if_missing():
        sys.exit(main("relay", _load))

"""`python -m api`: runs the public app, with ingest and reads."""

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
    from api.app import create_app

    return create_app


if __name__ == "__main__":
    with explained_if_missing():
        sys.exit(main("api", _load))

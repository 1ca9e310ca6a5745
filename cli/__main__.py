"""Runs session-cli as `python -m cli`, for the launcher in bin/, and as the scripts of an installation."""

from __future__ import annotations

import sys

from models.process.missing_packages import explained_if_missing

with explained_if_missing():
    from cli.main import main

if __name__ == "__main__":
    sys.exit(main())

"""Runs session-cli as `python -m cli`, for the launcher in bin/."""

from __future__ import annotations

import sys

try:
    from cli.main import main
except ModuleNotFoundError as error:
    sys.exit(
        f"session-cli: the Python package {error.name} is not installed. Run `make up` (or `make test`) to install it."
    )

if __name__ == "__main__":
    sys.exit(main())

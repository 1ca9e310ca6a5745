"""`python -m cli`: session-cli, for its launcher in bin/."""

from __future__ import annotations

import sys

try:
    from cli.main import main
except ModuleNotFoundError as error:
    sys.exit(f"session-cli: {error.name} is not installed here. `make up` (or `make test`) installs what is needed.")

if __name__ == "__main__":
    sys.exit(main())

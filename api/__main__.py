"""`python -m api`: runs the public app, with ingest and reads."""

from __future__ import annotations

import sys

from api.app import create_app
from relay.http.server import main

if __name__ == "__main__":
    sys.exit(main(create_app))

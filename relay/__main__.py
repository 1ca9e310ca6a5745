"""`python -m relay`: the ingest alone."""

from __future__ import annotations

import sys

from relay.app import create_relay
from relay.http.server import main

if __name__ == "__main__":
    sys.exit(main(create_relay))

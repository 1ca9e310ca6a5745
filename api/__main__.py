"""`python -m api`: the public app, ingest and reads."""

from __future__ import annotations

import sys

from api.app import create_app
from models.errors import SettingsError
from models.lifeline import hold_lifeline
from models.logs import configure_logging
from models.settings import read_settings
from relay.server import serve


def main() -> int:
    """Serve until told to stop; 2 if the settings do not allow it."""
    hold_lifeline()
    try:
        settings = read_settings()
        configure_logging(settings)
        app = create_app(settings)
    except SettingsError as error:
        print(f"session-relay: {error.message}", file=sys.stderr)
        return 2
    serve(app, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""session-cli: people's commands, on a relay over HTTP or directly on a store."""

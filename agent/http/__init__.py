"""The HTTP client of the relay: its URL, commands, claims and errors."""

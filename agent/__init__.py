"""The agent runner, and the HTTP client of the relay, which session-cli uses, too."""

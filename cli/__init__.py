"""session-cli: the command line for a relay over HTTP, or for a store directly."""

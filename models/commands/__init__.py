"""Command definitions and field descriptions, parsing of payloads, and responses."""

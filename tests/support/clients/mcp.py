"""MCP spoken by hand."""

HEADERS = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
"""What a client sends with each message."""

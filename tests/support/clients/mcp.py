"""MCP messages written by hand."""

HEADERS = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
"""The headers of each message."""

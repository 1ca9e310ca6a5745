"""Limits and shares: of requests, bytes, backlog, reads and time."""

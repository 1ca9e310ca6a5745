"""Limits and fair shares: of requests, bytes, backlog, reads and time."""

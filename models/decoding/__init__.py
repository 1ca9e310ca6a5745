"""Decodes strict JSON from clients, with errors that say how to fix it."""

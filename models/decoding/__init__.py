"""Decoding JSON from clients, strictly or leniently, with errors that say how to fix it."""

"""Runs in which servers and processes are killed, and what must hold afterwards."""

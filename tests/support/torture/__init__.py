"""Runs in which servers and processes are killed, and the conditions that must hold afterwards."""

"""Agents that claim tasks, and the runner that does so for a command."""

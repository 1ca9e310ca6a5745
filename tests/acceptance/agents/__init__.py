"""Agents that claim tasks, and the runner that claims tasks for a command."""

"""The relay as a process of its own, with a real Redis."""

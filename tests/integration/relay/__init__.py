"""The relay as a process of its own, on a real Redis."""

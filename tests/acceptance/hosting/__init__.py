"""The whole on one machine, behind a pooler, and as platforms run it."""

"""Hosting: on one machine, behind a pooler, and on platforms."""

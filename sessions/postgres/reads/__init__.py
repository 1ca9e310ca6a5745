"""Reads in Postgres: one module per kind of item, search, and the scope of a read."""

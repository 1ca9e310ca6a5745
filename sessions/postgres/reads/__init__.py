"""Reads in Postgres: one module for each kind of item, search, and what a key may see."""

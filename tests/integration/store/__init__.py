"""Postgres: migrations, reads, search, claims, documents, keys and roles."""

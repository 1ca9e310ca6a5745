"""Exporting a whole session from Postgres, and importing it."""

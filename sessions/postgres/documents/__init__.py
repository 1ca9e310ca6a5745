"""Exports and imports complete sessions in Postgres."""

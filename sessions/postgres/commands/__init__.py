"""Loads the state that commands need from Postgres, and writes their changes."""

"""Runs the whole stack on one machine, with Postgres and Valkey from wheels; and tools for operators."""

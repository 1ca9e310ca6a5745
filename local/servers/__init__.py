"""Embedded Postgres and Valkey from wheels."""

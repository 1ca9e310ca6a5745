"""Embedded Postgres and Valkey servers, from wheels."""

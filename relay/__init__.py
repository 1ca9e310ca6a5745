"""The ingest: authenticate, validate, push, wait, answer. Needs Redis, never Postgres."""

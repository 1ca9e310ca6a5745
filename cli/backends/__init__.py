"""The stores that commands work on: a relay over HTTP, Postgres, or JSON files."""

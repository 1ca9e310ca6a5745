"""The backends of commands: a relay over HTTP, Postgres, or JSON files."""

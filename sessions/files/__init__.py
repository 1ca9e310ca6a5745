"""The JSON store: one file per session, which is its exported document, with the same rules as in Postgres."""

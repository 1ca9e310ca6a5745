"""The JSON store: a file for each session, which is its exported document, with the same rules as in Postgres."""

"""What is in Postgres: migrations, reads, search, claims, documents, keys, roles."""

"""The Postgres store: loading and writing the state of commands, reads, tasks, documents and operations."""

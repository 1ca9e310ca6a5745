"""The store in Postgres: loading what a batch touches, writing its changes, reads and search."""

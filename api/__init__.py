"""The doors that need Postgres: reads, search, deliveries, events; and the one public app, with the relay's routes."""

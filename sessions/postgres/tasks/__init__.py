"""Claims, leases and the progress of tasks in Postgres."""

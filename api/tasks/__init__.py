"""Tasks over HTTP: agents, claims, and waiting for a task to claim."""

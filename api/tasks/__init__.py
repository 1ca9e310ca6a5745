"""Task endpoints: agents, claims, and waiting for a task to claim."""

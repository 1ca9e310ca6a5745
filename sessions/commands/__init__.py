"""Applies commands: the session manager, batches, and the records of deliveries and events."""

"""Applying commands: the session manager, batches, and the state and records that rules work on."""

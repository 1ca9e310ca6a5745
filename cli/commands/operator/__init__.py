"""Operator commands: status, keys, deliveries, dead letters, databases, doctor."""

"""Commands for operators: status, keys, deliveries, dead letters, databases, doctor."""

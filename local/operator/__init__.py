"""Operators' tools: backups, restore, migrations, and a read-only database role."""

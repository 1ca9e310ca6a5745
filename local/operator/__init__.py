"""Tools for operators: backups, restore, migrations, and a read-only database role."""

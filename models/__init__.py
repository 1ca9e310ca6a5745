"""Definitions shared by all processes: settings, errors, commands, tables and the inbox. Imports no other package."""

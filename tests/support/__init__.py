"""Shared code of the tests. Test modules import from here, never from one another."""

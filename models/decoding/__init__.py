"""Decodes JSON from clients strictly, with errors that say how to fix it."""

"""Changing a response before it is stored or sent: redaction, size limits, and news of the session's tasks."""

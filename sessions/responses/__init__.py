"""Changes responses before they are stored or sent: redaction, size limits, and updates on the session's tasks."""

"""A session as one JSON document: export, and validation on import."""

"""The project itself: its structure, documents, packages and images."""

"""The project itself: its shape, documents, packages and images."""

"""Access control: who sends a request, whether its key, token or signature is valid, and what it may do."""

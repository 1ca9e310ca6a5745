"""API keys, their scopes, and the session patterns they are limited to."""

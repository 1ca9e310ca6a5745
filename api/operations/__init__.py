"""Endpoints for operators: deliveries, dead letters, API keys and status."""

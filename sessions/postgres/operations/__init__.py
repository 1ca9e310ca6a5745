"""What operators see in Postgres: deliveries, dead letters, API keys, health, schema revision."""

"""Operations in Postgres: deliveries, dead letters, API keys, health and the schema revision."""

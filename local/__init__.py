"""The whole stack on one machine from wheels: embedded Postgres and Valkey, migrations, processes."""

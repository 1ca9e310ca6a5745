"""Loading the state that commands need from Postgres, and writing their changes."""

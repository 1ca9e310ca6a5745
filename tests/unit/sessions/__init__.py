"""What commands mean, and how sessions are shown."""

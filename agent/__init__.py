"""What runs on an agent's machine, and what it shares with people's tools: the HTTP client of the relay."""

"""Authorization: keys, scopes, OAuth, and secrets that are shown to nobody."""

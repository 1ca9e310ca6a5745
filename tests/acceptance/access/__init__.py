"""Who may do what: keys, scopes, OAuth, and what is shown to nobody."""

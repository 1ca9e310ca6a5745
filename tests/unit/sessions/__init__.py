"""Commands and their rules, and the presentation of sessions."""

"""Rules for commands: pure functions from a state and a command to changes and a response."""

"""session-cli and the agent runner without a relay."""

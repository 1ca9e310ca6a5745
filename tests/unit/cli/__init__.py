"""session-cli and the agent's runner without a relay."""

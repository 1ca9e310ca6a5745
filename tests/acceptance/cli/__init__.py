"""The commands of session-cli as people and programs use them."""

"""The programs of the project, and what they talk to, as tests start, kill and stop them."""

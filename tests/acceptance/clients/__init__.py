"""Client programs in Python, against the running stack."""

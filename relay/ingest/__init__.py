"""The path of a webhook: its endpoints, pushing commands into the inbox, and enqueueing the jobs that drain it."""

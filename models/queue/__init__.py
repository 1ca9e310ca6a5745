"""Messages between processes: the inbox in Redis, RQ's queue, and task notifications."""

"""Wakes requests of this process when Redis announces an outcome, a settled task or new events.

Waiters hold neither a thread nor a connection to Redis. As messages can be lost, the notifier or its waiters also poll.
"""

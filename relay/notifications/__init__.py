"""Wakes requests of this process when Redis announces an outcome, a settled task or new events.

Waiters hold neither a thread nor a connection. As messages can be lost, each notifier also polls.
"""

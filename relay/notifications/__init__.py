"""Wakes whoever waits in this process when Redis announces an outcome, a settled task or a grown journal.

Waiters hold neither a thread nor a connection; each kind is also looked for now and then, as announcements can be lost.
"""

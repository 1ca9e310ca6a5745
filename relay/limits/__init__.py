"""Limits on what senders may use: request rates, concurrent waiters, and load shedding while Redis is slow or full."""

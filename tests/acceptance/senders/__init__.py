"""Webhooks of senders, valid or hostile, and the responses to them."""

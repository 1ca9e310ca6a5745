"""Stores, inboxes and states that tests fill and read without a process between."""

"""Stores, inboxes and states that tests fill and read in their own process."""

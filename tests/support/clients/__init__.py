"""Clients that tests play over HTTP: agents, senders, apps, attackers."""

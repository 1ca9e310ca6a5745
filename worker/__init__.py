"""RQ: drains the inbox into the store, publishes outcomes, keeps dead letters, sweeps up, supervises its processes."""

"""Sessions: rules as pure functions, the session manager, the stores, reads, search and export."""

"""What commands mean: rules as pure functions, the session manager, the stores, reads, search and export."""

"""Reading sessions over HTTP: reads, events, exports and imports."""

"""The public app with its processes."""

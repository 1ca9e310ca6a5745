"""Process set-up shared by all processes: logging, garbage collection, and exiting with the parent process."""

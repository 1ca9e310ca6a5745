"""Set-up that every process shares: logging, garbage collection, ending with the parent process."""

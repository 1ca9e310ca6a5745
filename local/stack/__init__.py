"""Running the whole stack on one machine: start, supervision, console, shutdown."""

"""Running the command of one claimed task: its directory, processes and results."""

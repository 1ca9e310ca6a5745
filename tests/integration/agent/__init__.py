"""The parts of the agent runner."""

"""The parts of an agent's runner."""

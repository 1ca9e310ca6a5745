"""The commands: their definitions, their fields, parsing a payload into one, and the response to it."""

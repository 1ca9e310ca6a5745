"""Decoding of commands: their forms, spellings, times and ids."""

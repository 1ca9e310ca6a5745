"""The table of vectors: made, filled and watched."""

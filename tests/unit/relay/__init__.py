"""The relay's parts without servers."""

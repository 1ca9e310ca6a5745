"""Documents, examples and stories, from their first line to their last."""

"""Full-text search, the same for every store: words of texts and queries, passages, and ranks. Pure."""

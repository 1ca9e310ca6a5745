"""Answers reads for all stores: results, pages, truncation, search, Markdown."""

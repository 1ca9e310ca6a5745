"""Answering reads, whichever store they are from: results, pages, truncation, search, Markdown."""

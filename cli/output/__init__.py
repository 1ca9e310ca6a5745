"""Output for people and for programs: tables, TSV, JSON, paging."""

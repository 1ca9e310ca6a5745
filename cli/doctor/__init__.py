"""Diagnosing a relay, its servers and MCP configurations, with a remedy for each finding."""

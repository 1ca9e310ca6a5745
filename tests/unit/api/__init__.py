"""The OpenAPI document, MCP and OAuth without servers."""

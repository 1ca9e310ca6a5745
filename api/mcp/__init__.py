"""The MCP server at /mcp: sessions and tasks as tools, resources and a prompt for LLMs and their clients."""

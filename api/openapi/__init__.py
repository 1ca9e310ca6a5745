"""The OpenAPI document, the documentation page, and the instructions for LLMs."""

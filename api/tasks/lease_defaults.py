"""Lengths of leases: the default over HTTP, the default of the MCP tool, and the longest."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

DEFAULT_LEASE_SECONDS = 60
"""Short: the agent runner extends its lease while it works, so a dead runner's task is soon claimed again."""
MCP_LEASE_SECONDS = 1_800
"""Long: a model extends its lease only when it calls a tool."""
MAX_LEASE_SECONDS = 3_600

LeaseSeconds = Annotated[int, Meta(ge=1, le=MAX_LEASE_SECONDS)]

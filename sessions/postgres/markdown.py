"""A session as a document that one would send to a colleague."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, Text, cast, select

from models.tables import ArtifactRow, ChunkRow, MemoryRow, SessionRow, TaskRow
from sessions.postgres.reach import require_session, stream

HEADINGS = {
    "decision": "Decisions",
    "action_item": "Action items",
    "question": "Questions",
    "risk": "Risks",
    "idea": "Ideas",
    "fact": "Facts",
    "preference": "Preferences",
    "context": "Context",
    "note": "Notes",
    "general": "Other memories",
}
_TEXT_FORMATS = {"markdown", "md", "text", "txt", "plain", "text/markdown", "text/plain"}

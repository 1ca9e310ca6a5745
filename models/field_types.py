"""Shared field types: statuses, kinds, limits, and the patterns of ids and names."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

SessionStatus = Literal["active", "paused", "completed"]
MemoryType = Literal[
    "idea", "decision", "question", "action_item", "context", "preference", "fact", "risk", "note", "general"
]
MemoryStatus = Literal["open", "done", "superseded"]
MemoryOrder = Literal["updated", "due"]
ChunkFormat = Literal["dialogue", "summary", "transcript"]
TaskStatus = Literal["pending", "claimed", "running", "input_required", "completed", "failed", "cancelled"]
DeliveryStatus = Literal["accepted", "applied", "rejected", "parked", "failed", "ignored"]
SearchArea = Literal["conversations", "memories", "artifacts", "tasks", "sessions"]
Scope = Literal["read", "write", "delegate", "agent", "admin", "send", "hook"]

UNFINISHED: frozenset[TaskStatus] = frozenset({"pending", "claimed", "running", "input_required"})
FINISHED: frozenset[TaskStatus] = frozenset({"completed", "failed", "cancelled"})
OPEN_TYPES: tuple[MemoryType, ...] = ("question", "action_item")
"""The types of memories that can be open. `open` is stored for all types, but returned and found only for these."""
SETTLED: frozenset[TaskStatus] = FINISHED | {"input_required"}
"""Statuses in which no agent works on the task."""

# `$` also matches before a final newline in Python, hence the lookahead.
ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$(?!\n)"
DELIVERY_ID_PATTERN = r"^[A-Za-z0-9_-][A-Za-z0-9._:-]{0,127}$(?!\n)"
LABEL_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9 .+/_-]{0,63}$(?!\n)"
DUE_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?$(?!\n)"
# Any script; not only whitespace; no control characters, line separators or paragraph separators.
NAME_PATTERN = r"^(?=.*\S)[^\u0000-\u001f\u007f-\u009f\u2028\u2029]+$(?!\n)"
LINE_PATTERN = r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$(?!\n)"

PATTERNS = {
    ID_PATTERN: "1 to 128 letters, digits and . _ : @ -, the first a letter or digit",
    DELIVERY_ID_PATTERN: "1 to 128 letters, digits and . _ : -",
    LABEL_PATTERN: "1 to 64 letters, digits, spaces and . + / _ -, the first a letter or digit",
    NAME_PATTERN: "1 to 256 printable characters",
    LINE_PATTERN: "one line of printable characters",
    DUE_PATTERN: "a date, or a time in UTC without fractions of seconds",
}
"""Descriptions of the patterns for errors and schemas."""

Id = Annotated[str, Meta(pattern=ID_PATTERN, description=PATTERNS[ID_PATTERN])]
DeliveryId = Annotated[str, Meta(pattern=DELIVERY_ID_PATTERN, description=PATTERNS[DELIVERY_ID_PATTERN])]
Label = Annotated[str, Meta(pattern=LABEL_PATTERN, description=PATTERNS[LABEL_PATTERN])]
Name = Annotated[str, Meta(min_length=1, max_length=256, pattern=NAME_PATTERN, description=PATTERNS[NAME_PATTERN])]
Due = Annotated[str, Meta(pattern=DUE_PATTERN, description=PATTERNS[DUE_PATTERN])]
Names = Annotated[list[Name], Meta(max_length=100)]
Limit = Annotated[int, Meta(ge=1, le=500)]
Priority = Annotated[int, Meta(ge=-1000, le=1000, description="Higher priorities are claimed first")]
Attempts = Annotated[int, Meta(ge=1, le=100)]
Revision = Annotated[int, Meta(ge=1, le=2_147_483_647)]
Offset = Annotated[int, Meta(ge=0, le=1_000_000_000)]
MaxCharacters = Annotated[int, Meta(ge=200, le=90_000, description="Longer text is truncated, with next_offset")]
Cursor = Annotated[str, Meta(min_length=1, max_length=2000, description="next_cursor of the previous page")]
Query = Annotated[str, Meta(min_length=1, max_length=1000)]

UNSPACED_SYLLABLES = (
    r"\u1100-\u11ff\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    r"\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
"""Chinese, Japanese and Korean (which has spaces, but many inflected endings): the body of a character class in the
regular expressions of Python and Postgres."""
UNSPACED_LETTERS = r"\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\ua9e0-\ua9ff\uaa60-\uaa7f"
"""Thai, Lao, Tibetan, Burmese, Khmer."""

MAX_WAIT_SECONDS = 40
"""GPT Actions give up after 45 s."""
DEFAULT_MAX_CHARACTERS = 20_000
"""An amount that an LLM can read in one response without crowding out its conversation."""
MAX_CHARACTERS = 90_000
"""GPT Actions reject responses of 100,000 characters."""
BATCH_LIMIT = 500
"""Items in one batch; also the number of entries that a drain reads at a time."""

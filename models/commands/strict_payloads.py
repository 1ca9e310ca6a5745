"""The fast path for bodies in the strict form, which most senders use: each part is decoded once and hashed as decoded.

`payloads` handles all other bodies, valid or not. Both paths return the same command and the same hash.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from models import field_types as v
from models.commands.content_ids import canonical
from models.commands.definitions import COMMANDS, EMPTY_OBJECT, AddArtifact, Batch, BatchItem, Command, GetTask, name_of
from models.commands.derived_ids import ID_FIELDS, Content, content_of, derive_session, with_ids
from models.decoding.strict import MAX_DEPTH, decode_json, depth_of
from models.errors import Invalid

ENVELOPE_TYPE = "collaborative_session_command"
ALIASES = {"append_conversation": "conversation_chunk", "update_memory": "store_memory"}

_ID = re.compile(v.ID_PATTERN)
_DIGITS = bytes(ord("9" if chr(code) in "0123456789." else " ") for code in range(256))
"""Translates digits and decimal points to nines, and all other bytes to spaces."""
_LONG_NUMBER = b"9" * 17
"""More digits than a float can represent."""
_ESCAPE = b"\\u00"
_UNUSUAL = (b"\\u0000", b"\\u003")
"""Escapes of NUL, which is rejected, and of the colon, which repeated keys are detected by."""


class StrictCommand(msgspec.Struct, kw_only=True):
    """A command with all its ids."""

    command: Command
    session_id: str | None
    names_session: bool
    """The session_id is derived from the title."""
    hash: str
    delivery_id: str | None = None
    sync: bool = False


class _Envelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields around a command's data; UNSET marks absent ones."""

    command: str
    type: Literal["collaborative_session_command"] | UnsetType = UNSET
    session_id: str | UnsetType = UNSET
    data: Raw = EMPTY_OBJECT
    id: v.DeliveryId | UnsetType = UNSET
    sync: bool | UnsetType = UNSET
    feedback_mode: Literal["async", "sync"] | UnsetType = UNSET

    @property
    def colons(self) -> int:
        """The number of colons in the envelope's JSON, outside its data."""
        count = 1 + self.command.count(":") + (self.data is not EMPTY_OBJECT)
        count += (self.type is not UNSET) + (self.sync is not UNSET) + (self.feedback_mode is not UNSET)
        if self.session_id is not UNSET:
            count += 1 + self.session_id.count(":")
        if self.id is not UNSET:
            count += 1 + self.id.count(":")
        return count


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of the flat form that do not belong to the command."""

    session_id: str | UnsetType = UNSET
    id: v.DeliveryId | UnsetType = UNSET

    @property
    def colons(self) -> int:
        """The number of colons in the JSON of these fields."""
        return sum(1 + text.count(":") for text in (self.session_id, self.id) if text is not UNSET)


class _Part(msgspec.Struct, frozen=True):
    """A single command, or one of a batch."""

    command: Command
    content: Content
    added: int
    """The number of colons that derived ids add to the sent JSON."""


NOT_STRICT = (msgspec.DecodeError, UnicodeDecodeError, Invalid)
"""Raised for bodies that are not in the strict form."""


def read_envelope(body: bytes) -> StrictCommand | None:
    """Parse `{type, command, session_id, data, ...}`; None if it is not in the strict form."""
    if is_unusual(body):
        return None
    try:
        envelope = _ENVELOPE.decode(body)
        session_id = _given(envelope.session_id)
        found = _read(envelope.command, envelope.data, session_id=session_id, body=body, colons=envelope.colons)
    except NOT_STRICT:
        return None
    if found is not None:
        found.delivery_id = _given(envelope.id)
        found.sync = envelope.sync is True or envelope.feedback_mode == "sync"
    return found


def read_flat(name: str, body: bytes) -> StrictCommand | None:
    """Parse `{session_id, id?, ...data}` for the named command; None if it is not in the strict form."""
    if is_unusual(body):
        return None
    try:
        fields = _FIELDS.decode(body)
        outer = {field: fields.pop(field) for field in ("id", "session_id") if field in fields}
        head = _HEAD.decode(msgspec.json.encode(outer))
        data = Raw(msgspec.json.encode(fields))
        found = _read(name, data, session_id=_given(head.session_id), body=body, colons=head.colons)
    except NOT_STRICT:
        return None
    if found is not None:
        found.delivery_id = _given(head.id)
    return found


def is_unusual(body: bytes) -> bool:
    """Return whether the body needs the full checks, or would be too slow to decode."""
    if _LONG_NUMBER in body.translate(_DIGITS) or (_ESCAPE in body and any(text in body for text in _UNUSUAL)):
        return True
    return body.count(b"[") + body.count(b"{") > MAX_DEPTH and depth_of(body) >= MAX_DEPTH


def _read(name: str, data: Raw, *, session_id: str | None, body: bytes, colons: int) -> StrictCommand | None:
    definition = COMMANDS.get(ALIASES.get(name, name))
    if definition is None or (session_id is not None and not _ID.search(session_id)):
        return None
    part = _read_batch(data) if definition is Batch else _read_command(definition, data)
    if part is None:
        return None
    is_given = session_id is not None
    if definition.session == "derived" and session_id is None:
        session_id = derive_session(part.command)
    if session_id is None and definition.session in ("required", "derived"):
        return None
    added = part.added + (session_id or "").count(":")
    if isinstance(part.command, GetTask) and part.content.pop("wait", None) is not None:
        added -= 1
    hashed = canonical([name_of(part.command), session_id, part.content])
    # Decoding drops repeated keys, and encoding drops defaults that were sent: a difference needs the full check.
    if body.count(b":") != hashed.count(b":") - added + colons:
        decode_json(body)
    return StrictCommand(
        command=part.command,
        session_id=session_id,
        names_session=definition.session == "derived" and not is_given,
        hash=hashlib.sha256(hashed).hexdigest(),
    )


def _read_command(definition: type[Command], data: Raw) -> _Part | None:
    command = _decoder_of(definition).decode(data)
    if isinstance(command, AddArtifact) and command.task_id is None and command.metadata is not EMPTY_OBJECT:
        return None  # Older senders put the task id into metadata.
    content = content_of(command, decode=_decode_free)
    named = with_ids(command, content)
    added = 0 if named is command else 1 + str(content[ID_FIELDS[definition]]).count(":")
    return _Part(named, content, added)


def _read_batch(data: Raw) -> _Part | None:
    batch = _BATCH.decode(data)
    items: list[BatchItem] = []
    contents: list[Content] = []
    added = 0
    for item in batch.commands:
        definition = COMMANDS.get(ALIASES.get(item.command, item.command))
        if definition is None or not definition.in_batch:
            return None
        part = _read_command(definition, item.data)
        if part is None:
            return None
        name = name_of(part.command)
        items.append(BatchItem(command=name, data=Raw(msgspec.json.encode(part.command))))
        contents.append({"command": name, "data": part.content})
        added += part.added + (item.data is EMPTY_OBJECT)
    content = content_of(msgspec.structs.replace(batch, commands=[])) | {"commands": contents}
    return _Part(msgspec.structs.replace(batch, commands=items), content, added)


def _decode_free(raw: Raw) -> Any:
    """Decode free-form JSON, in which no number has more digits than a float."""
    return _ANY.decode(raw)


def _given(value: str | UnsetType) -> str | None:
    return None if value is UNSET else value


@cache
def _decoder_of(definition: type[Command]) -> msgspec.json.Decoder[Command]:
    return msgspec.json.Decoder(definition)


_ANY = msgspec.json.Decoder()
_ENVELOPE = msgspec.json.Decoder(_Envelope)
_FIELDS = msgspec.json.Decoder(dict[str, Raw])
_HEAD = msgspec.json.Decoder(_Head)
_BATCH = msgspec.json.Decoder(Batch)

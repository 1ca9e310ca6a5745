"""Parses a request body into a command: the envelope, the flat form, and the forms of older senders.

Pure functions: authorization and effects are handled elsewhere.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec
from msgspec import Raw

from models import field_types as v
from models.commands.agent_commands import AGENT_COMMANDS
from models.commands.content_ids import content_hash, decode_exactly
from models.commands.definitions import (
    COMMANDS,
    Batch,
    BatchItem,
    Command,
    GetTask,
    name_of,
)
from models.commands.derived_ids import derive_session, with_ids
from models.commands.lenient_decoding import MAX_PROBLEMS, NULL, combine, decode_leniently, read_object
from models.commands.strict_payloads import ALIASES, ENVELOPE_TYPE, StrictCommand, read_envelope, read_flat
from models.decoding.strict import decode_as, decode_json, missing_field, nearest
from models.errors import Invalid, NotJson

_ID = re.compile(v.ID_PATTERN)


class Envelope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields around a command's data."""

    command: str
    type: str = ENVELOPE_TYPE
    session_id: str | None = None
    data: Raw = Raw(b"{}")
    id: v.DeliveryId | None = None
    sync: bool = False
    feedback_mode: Literal["async", "sync"] = "async"


class Submission(msgspec.Struct, frozen=True, kw_only=True):
    """A command as it will be stored and applied, with the ids derived from its content filled in."""

    command: Command
    session_id: str | None
    delivery_id: str | None
    sync: bool
    by_content: bool = False
    """The delivery id is derived from the content."""
    is_flat: bool = False
    """The fields were at the top level, not inside `data`."""
    names_session: bool = False
    """The session_id is derived from the title."""
    fingerprint: str = ""
    """The hash of the content, or of a stand-in for it, if it is already known."""

    @property
    def hash(self) -> str:
        """The hash of the effective content, without the delivery id and the wait parameters."""
        if self.fingerprint:
            return self.fingerprint
        content = decode_exactly(msgspec.json.encode(self.command))
        if isinstance(self.command, GetTask):
            content.pop("wait", None)
        return content_hash([name_of(self.command), self.session_id, content])


def parse_envelope(body: bytes) -> Submission:
    """Parse `{type, command, session_id, data, ...}`. Raises NotJson, or Invalid with the path of the field."""
    if found := parse_envelope_strictly(body):
        return found
    envelope = decode_leniently(_object_of(body), Envelope)
    if envelope.type != ENVELOPE_TYPE:
        raise Invalid(
            f"Invalid envelope type {envelope.type[:64]!r}.",
            code="not_a_command",
            field="type",
            expected=ENVELOPE_TYPE,
            hint='Set "type" to that value or omit it. Put the type of a memory or artifact into "data".',
        )
    command, session_id, is_named = _parse(
        envelope.command, envelope.data, session_id=envelope.session_id, prefix="data."
    )
    sync = envelope.sync or envelope.feedback_mode == "sync"
    return Submission(
        command=command, session_id=session_id, names_session=is_named, delivery_id=envelope.id, sync=sync
    )


def parse_flat(command_name: str, body: bytes) -> Submission:
    """Parse `{session_id, id?, ...data}` for the named command. Raises NotJson or Invalid."""
    if found := parse_flat_strictly(command_name, body or b"{}"):
        return found
    fields = msgspec.json.decode(_object_of(body or b"{}"), type=dict[str, Raw])
    outer = {name: fields.pop(name) for name in ("id", "session_id") if name in fields}
    head = decode_leniently(msgspec.json.encode({"command": command_name, **outer}), Envelope)
    command, session_id, is_named = _parse(command_name, _encode(fields), session_id=head.session_id, prefix="")
    return Submission(
        command=command,
        session_id=session_id,
        names_session=is_named,
        delivery_id=head.id,
        sync=False,
        is_flat=True,
    )


def parse_envelope_strictly(body: bytes) -> Submission | None:
    """Parse an envelope; None if it is not in the strict form."""
    found = read_envelope(body)
    return None if found is None else _submission_of(found)


def parse_flat_strictly(command_name: str, body: bytes) -> Submission | None:
    """Parse the flat form of a command; None if it is not in the strict form."""
    found = read_flat(command_name, body)
    return None if found is None else _submission_of(found, is_flat=True)


def _submission_of(found: StrictCommand, *, is_flat: bool = False) -> Submission:
    return Submission(
        command=found.command,
        session_id=found.session_id,
        delivery_id=found.delivery_id,
        sync=found.sync,
        is_flat=is_flat,
        names_session=found.names_session,
        fingerprint=found.hash,
    )


def definition_of(name: str, *, field: str = "command") -> type[Command]:
    """Return the definition of a command by its name or alias. Raises Invalid with a list of the valid names."""
    if definition := COMMANDS.get(ALIASES.get(name, name)):
        return definition
    guess = nearest(name[:64], [*COMMANDS, *ALIASES])
    raise Invalid(
        f"Unknown command {name[:64]!r}.",
        code="unknown_command",
        field=field,
        expected=f"one of: {', '.join(COMMANDS)}",
        hint=f"Did you mean {guess!r}?" if guess else None,
    )


def decode_command(name: str, data: Raw) -> Command:
    """Decode a command from the inbox or a batch, where it is stored in its parsed form."""
    return decode_as(bytes(data), AGENT_COMMANDS.get(name) or COMMANDS[name])


def scopes_of(command: Command) -> list[v.Scope]:
    """Return the scopes that a command, or all commands of a batch, need, without duplicates."""
    if not isinstance(command, Batch):
        return [*command.scopes]
    scopes: dict[v.Scope, None] = {}
    for item in command.commands:
        definition = COMMANDS[item.command]
        # Decoded only if the scopes depend on the command's data.
        needs_own = definition.scopes is not Command.scopes
        scopes |= dict.fromkeys(decode_command(item.command, item.data).scopes if needs_own else (definition.scope,))
    return list(scopes) or [*command.scopes]


def _parse(name: str, data: Raw, *, session_id: str | None, prefix: str) -> tuple[Command, str | None, bool]:
    """Return the command, its session_id, and whether that is derived from the title."""
    definition = definition_of(name)
    fields = fields_of(data, prefix)
    session_id = _one_session(session_id, fields, prefix)
    is_given = session_id is not None
    fields = _upgrade_legacy(ALIASES.get(name, name), fields, prefix)
    command: Command
    faults: list[Invalid] = []
    try:
        if definition is Batch:
            command, session_id = _parse_batch(fields, session_id=session_id, prefix=prefix)
        else:
            beside = [] if definition.session == "none" else ["session_id"]
            beside += [] if prefix else ["id"]
            command = with_ids(decode_leniently(_encode(fields), definition, prefix=prefix, beside=beside))
        if definition.session == "derived" and session_id is None:
            session_id = derive_session(command)
    except Invalid as error:
        faults.append(error)
    if session_id is None and (definition.session == "required" or (definition.session == "derived" and not faults)):
        missing = missing_field("session_id", prefix="")
        missing.hint = "Use list_sessions to find the id, or create_session to start a session."
        faults.append(missing)
    if faults:
        raise combine(faults)
    is_named = definition.session == "derived" and not is_given and derive_session(command) == session_id
    return command, session_id, is_named


def _parse_batch(fields: dict[str, Raw], *, session_id: str | None, prefix: str) -> tuple[Batch, str | None]:
    chunk = fields.pop("conversation_chunk", NULL)
    items = decode_leniently(fields.get("commands", Raw(b"[]")), list[Raw], prefix=f"{prefix}commands")
    if chunk != NULL:
        items.insert(0, _encode({"command": Raw(b'"conversation_chunk"'), "data": chunk}))
    fields["commands"] = Raw(b"[" + b",".join(bytes(item) for item in items[: v.BATCH_LIMIT + 1]) + b"]")
    parsed: list[BatchItem] = []
    faults: list[Invalid] = []
    for number, raw in enumerate(items[: v.BATCH_LIMIT]):
        try:
            command, session_id = _parse_item(raw, number, session_id=session_id, where=f"{prefix}commands[{number}].")
            parsed.append(BatchItem(command=name_of(command), data=_encode(command)))
        except Invalid as error:
            faults.append(error)
            if len(faults) == MAX_PROBLEMS:
                break
    if faults:
        raise combine(faults)
    batch = decode_leniently(_encode(fields | {"commands": _encode(parsed)}), Batch, prefix=prefix)
    if len(items) > v.BATCH_LIMIT:
        raise Invalid(
            f"The batch has {len(items)} commands, which is too many.",
            field=f"{prefix}commands",
            expected="1 to 500",
            hint="Split it into several batches.",
        )
    return batch, session_id


def _parse_item(raw: Raw, number: int, *, session_id: str | None, where: str) -> tuple[Command, str | None]:
    """Return a command of a batch, and the session_id of the batch if it is known so far."""
    item = fields_of(raw, where)
    session_id = _one_session(session_id, item, where)
    head = decode_leniently(_encode(item), BatchItem, prefix=where)
    definition = definition_of(head.command, field=f"{where}command")
    if not definition.in_batch:
        raise Invalid(f"{head.command} cannot be part of a batch.", field=f"{where}command", hint="Send it on its own.")
    data = fields_of(head.data, f"{where}data.")
    session_id = _one_session(session_id, data, f"{where}data.")
    data = _upgrade_legacy(ALIASES.get(head.command, head.command), data, f"{where}data.")
    command = with_ids(decode_leniently(_encode(data), definition, prefix=f"{where}data."))
    return command, derive_session(command) if number == 0 and session_id is None else session_id


def _upgrade_legacy(name: str, fields: dict[str, Raw], prefix: str) -> dict[str, Raw]:
    """Convert the data of older senders to the current form."""
    if name == "conversation_chunk" and "conversation_chunk" in fields and "content" not in fields:
        return fields_of(fields["conversation_chunk"], f"{prefix}conversation_chunk.")
    if name == "query_memories" and "filter" in fields:
        return fields_of(fields.pop("filter"), f"{prefix}filter.") | fields
    if name == "delegate_task" and "task" in fields and "description" not in fields:
        fields["description"] = fields.pop("task")
    if name == "add_artifact" and fields.get("task_id", NULL) == NULL and "metadata" in fields:
        metadata = msgspec.json.decode(read_object(fields["metadata"]) or b"{}")
        if isinstance(metadata.get("relates_to_task"), str):
            fields["task_id"] = _encode(metadata["relates_to_task"])
    return fields


def _one_session(outer: str | None, fields: dict[str, Raw], prefix: str) -> str | None:
    raw = fields.pop("session_id", None)
    inner = None if raw is None else decode_as(bytes(raw), str | None, prefix=f"{prefix}session_id")  # type: ignore[arg-type]
    if outer is not None and inner is not None and inner != outer:
        raise Invalid(
            f"The session_id {inner[:64]!r} differs from the outer session_id {outer[:64]!r}.",
            field=f"{prefix}session_id",
            expected=f"{outer[:128]!r}, or no inner session_id",
        )
    session_id = outer if inner is None else inner
    if session_id is not None and not _ID.search(session_id):
        raise Invalid(
            f"Invalid session_id {session_id[:128]!r}.",
            code="invalid_field",
            field="session_id",
            expected="1 to 128 letters, digits and . _ : @ -, the first a letter or digit",
            hint="list_sessions with q finds the id of a session by its title.",
        )
    return session_id


def fields_of(data: Raw, prefix: str) -> dict[str, Raw]:
    """Return the fields of an object, which may be encoded as text; none for null. Raises Invalid for other values."""
    if data == NULL:
        return {}
    found = read_object(data)
    if found is None:
        field = prefix.rstrip(".")
        raise Invalid(f"The field {field!r} is not valid: expected object.", field=field, expected="a JSON object")
    return msgspec.json.decode(found, type=dict[str, Raw])


def _object_of(body: bytes) -> Raw:
    """Return the object in a body, where it may be encoded as text. Raises NotJson, or Invalid for unsafe JSON."""
    decode_json(body)
    found = read_object(body)
    if found is None:
        raise NotJson("The body is JSON, but not an object.", code="not_an_object", expected="a JSON object: {...}")
    return found


def _encode(value: object) -> Raw:
    return Raw(msgspec.json.encode(value))

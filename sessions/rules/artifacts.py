"""Rules for artifacts and their revisions: a change under an artifact's id creates a revision."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from models.commands.content_ids import same_json
from models.commands.definitions import DEFAULT_ARTIFACT_TYPE, EMPTY_OBJECT, AddArtifact
from models.errors import Conflict, NotFound
from sessions.rules.decision import Context, Decision, active_session, touch
from sessions.rules.records import (
    Artifact,
    ArtifactRevision,
    Key,
    Record,
    Session,
    Task,
    artifact_key,
    readable_length,
    task_key,
)
from sessions.rules.state import State


def add_artifact(state: State, command: AddArtifact, context: Context) -> Decision:
    """Add an artifact, or a revision of it; repeating it is a no-op. Raises NotFound for an unknown task, Conflict when
    `if_revision` is not the current revision."""
    return put_artifact(state, command, context, session=active_session(state, context.session_id))


def put_artifact(
    state: State,
    command: AddArtifact,
    context: Context,
    *,
    session: Session,
    pending: Mapping[Key, Record] | None = None,
) -> Decision:
    """Add an artifact or a revision of it, whatever the session's status. `pending` are changes of the same command
    that the state lacks."""
    if command.task_id and state.find(task_key(context.session_id, command.task_id), Task) is None:
        raise NotFound(
            f"Task {command.task_id!r} not found in this session.",
            code="task_not_found",
            field="data.task_id",
            hint="Omit task_id (or metadata.relates_to_task), or delegate the task first.",
        )
    key = artifact_key(context.session_id, command.artifact_id or "")
    earlier = (pending or {}).get(key)
    known = earlier if isinstance(earlier, Artifact) else state.find(key, Artifact)
    artifact = _new(command, context) if known is None else _revise(known, command, context)
    _require_revision(command, known, artifact, context)
    data = {
        "artifact_id": artifact.artifact_id,
        "name": artifact.name,
        "type": artifact.type,
        "revision": artifact.revision,
        "created": known is None,
    }
    if artifact is known:
        return Decision(message=f'"{artifact.name}" already exists.', data=data)
    put: list[Record] = [artifact, touch(session, context.at)]
    if known is None:
        return Decision(message=f'Added "{artifact.name}".', data=data, put=put)
    message = f'Stored revision {artifact.revision} of "{artifact.name}".'
    return Decision(message=message, data=data | {"outcome": "revised"}, put=[*put, _as_revision(known)])


def _new(command: AddArtifact, context: Context) -> Artifact:
    return Artifact(
        session_id=context.session_id,
        artifact_id=command.artifact_id or "",
        name=command.name,
        type=command.type,
        format=command.format,
        content=command.content,
        metadata=command.metadata,
        task_id=command.task_id,
        created_by=context.source,
        created_at=context.at,
        characters=readable_length(command.content),
    )


def _revise(known: Artifact, command: AddArtifact, context: Context) -> Artifact:
    """The next revision, or the known one itself if nothing differs. Of what a sender omits, the type, the format and
    the task are kept, and a default counts as omitted. Metadata describes the content, and may be large: copied from
    revision to revision, it would let small commands store much."""
    has_metadata = not same_json(command.metadata, EMPTY_OBJECT)
    wanted = msgspec.structs.replace(
        known,
        name=command.name,
        type=known.type if command.type == DEFAULT_ARTIFACT_TYPE else command.type,
        format=command.format or known.format,
        content=known.content if same_json(command.content, known.content) else command.content,
        task_id=command.task_id or known.task_id,
    )
    if wanted == known and (not has_metadata or same_json(command.metadata, known.metadata)):
        return known
    return msgspec.structs.replace(
        wanted,
        metadata=command.metadata,
        revision=known.revision + 1,
        revised_at=max(context.at, known.revised_at or known.created_at),
        created_by=context.source,
        characters=readable_length(wanted.content),
    )


def _require_revision(command: AddArtifact, known: Artifact | None, artifact: Artifact, context: Context) -> None:
    """Raise Conflict unless the artifact is at the revision that the sender has seen. Repeating the write that created
    the latest revision is allowed: it changes nothing."""
    there = known.revision if known else 0
    fitting = {None, there}
    if known is artifact and known.created_by == context.source:
        fitting.add(there - 1)
    if command.if_revision not in fitting:
        raise Conflict(
            f'"{artifact.name}" is at revision {there}, not {command.if_revision}.',
            code="revision_conflict",
            field="data.if_revision",
            expected=str(there),
            hint="Read the current revision with get_artifact, then add yours again.",
            data={"artifact_id": artifact.artifact_id, "revision": there},
        )


def _as_revision(artifact: Artifact) -> ArtifactRevision:
    return ArtifactRevision(**{name: getattr(artifact, name) for name in Artifact.__struct_fields__})

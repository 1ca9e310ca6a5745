"""Rules for artifacts."""

from __future__ import annotations

from models.commands.content_ids import same_json
from models.commands.definitions import AddArtifact
from models.errors import Conflict, NotFound
from sessions.rules.decision import Context, Decision, active_session, touch
from sessions.rules.records import Artifact, Session, Task, search_text, task_key
from sessions.rules.state import State


def add_artifact(state: State, command: AddArtifact, context: Context) -> Decision:
    """Add an artifact; repeating it is a no-op. Raises Conflict if another artifact has the id, NotFound for an unknown
    task."""
    return put_artifact(state, command, context, session=active_session(state, context.session_id))


def put_artifact(state: State, command: AddArtifact, context: Context, *, session: Session) -> Decision:
    """Add an artifact, whatever the session's status."""
    if command.task_id and state.find(task_key(context.session_id, command.task_id), Task) is None:
        raise NotFound(
            f"Task {command.task_id!r} not found in this session.",
            code="task_not_found",
            field="data.task_id",
            hint="Omit task_id (or metadata.relates_to_task), or delegate the task first.",
        )
    artifact = Artifact(
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
        search_text=search_text(command.name, command.content),
    )
    data = {"artifact_id": artifact.artifact_id, "name": artifact.name, "type": artifact.type}
    known = state.find(artifact.key, Artifact)
    if known is None:
        put = [artifact, touch(session, context.at)]
        return Decision(message=f'Added "{artifact.name}".', data=data | {"created": True}, put=put)
    if not _same(known, artifact):
        raise Conflict(
            f'Another artifact already has this id: "{known.name}".',
            code="artifact_exists",
            field="data.artifact_id",
            hint="Choose another artifact_id, or omit it to have one generated.",
            data={"artifact_id": known.artifact_id, "name": known.name, "type": known.type},
        )
    return Decision(message=f'"{artifact.name}" already exists.', data=data | {"created": False})


def _same(one: Artifact, other: Artifact) -> bool:
    plain = ("name", "type", "format", "task_id")
    return (
        all(getattr(one, name) == getattr(other, name) for name in plain)
        and same_json(one.content, other.content)
        and same_json(one.metadata, other.metadata)
    )

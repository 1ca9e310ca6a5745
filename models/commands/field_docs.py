"""One-sentence descriptions of command fields, for the OpenAPI documents and the reference.

The types of the fields are in `definitions`; `sessions` implements their effect.
"""

from __future__ import annotations

from models.commands.definitions import Command

SESSION_MEANINGS = {
    "required": "The id of the session.",
    "optional": "The id of the session. Default: all sessions that the key may read.",
    "derived": "An id for the session. Default: derived from the title.",
    "none": "",
}
"""By the command's `session` requirement."""
OWN_SESSION_MEANINGS = {
    "ResumeBundle": "The id of the session. Default: the one last written to, whenever its content was said.",
    "Batch": "The session of all commands in the batch. Default: the one that the first command creates.",
}
DELIVERY_ID_MEANING = (
    "A unique id for this delivery, such as a UUID. A command sent again under the same id takes effect once."
)

SHARED_MEANINGS = {
    "answer": "The answer to the agent's question. The task returns to the queue with it.",
    "artifact_id": "The id of the artifact.",
    "cursor": "The next_cursor of the previous page.",
    "key": "The key of the memory.",
    "limit": "The maximum number of items per page.",
    "max_characters": "The maximum length of the response. Longer texts and lists are truncated and marked.",
    "metadata": "Any JSON object of your own.",
    "offset": "The position to continue at in a long text: the next_offset of the previous response.",
    "participants": "The names of the participants.",
    "since": "Only items from this time on: a time, a date, or an age such as 7d.",
    "tags": "Only items with at least one of these tags.",
    "task_id": "The id of the task.",
    "timezone": "The time zone of since and until, for values without an offset.",
    "until": "Only items before this time: a time, an age such as 7d, or a date, which is included.",
}
"""Descriptions of fields that mean the same in most commands."""

MEANINGS: dict[str, dict[str, str]] = {
    "CreateSession": {
        "title": "A title that also works when read aloud. Default: the session_id.",
        "context": "Background for participants who join later.",
    },
    "RenameSession": {"title": "The new title."},
    "CompleteSession": {
        "open_tasks": "How to handle unfinished tasks: refuse rejects the command and lists them, cancel cancels them."
    },
    "DeleteSession": {"confirm": "The id of the session again, as confirmation."},
    "ListSessions": {
        "filter": "Only sessions with this status.",
        "q": "Only sessions whose title, context or id contains all these words, in any case, with or without accents.",
        "since": "Only sessions last written to from this time on: a time, a date, or an age such as 7d.",
        "until": "Only sessions last active before this time; a date is included.",
    },
    "ConversationChunk": {
        "chunk_id": "An id within the session. Default: derived from the content.",
        "content": "The text of the conversation.",
        "format": "The form of the content: the dialogue itself, a summary, or the transcript of a recording.",
        "start_time": "The start of the conversation: a time, a date, or an age such as 7d.",
        "end_time": "The end of the conversation, in the same form.",
        "participants": "The names of the speakers.",
        "extracted_items": "Lists of texts or other JSON found in the conversation; each item becomes a memory of its "
        "type.",
    },
    "ReadConversation": {
        "chunk_id": "The chunk to begin with, such as that of a search hit. Default: the first.",
        "offset": "The position in that chunk to begin at, in characters; some hundred before that of a hit.",
        "limit": "The maximum number of chunks.",
        "cursor": "The next_cursor of the previous page; goes on there, whatever chunk_id and offset say.",
    },
    "StoreMemory": {
        "type": "The type of the memory. Default for a new one: general.",
        "key": "A name within the session. Each change under the same key is a new revision. Default: derived from the "
        "content.",
        "content": "The content to remember: text or any other JSON. It is returned exactly as sent. Omit it to change "
        "only other fields of a stored memory.",
        "tags": "Tags to find the memory by. [] removes all tags; omitted, they are kept.",
        "status": "The status of the memory. Only a question or action item can be open, and is so by default, also "
        "when its content is stored again.",
        "due": "The date or time at which it is due. An empty text removes it. Default: a date or time in the field "
        "`due` of new content.",
        "if_revision": "Store only if this is the latest revision. 0: only if the key is new.",
    },
    "RetrieveMemory": {"revision": "The revision to return. Default: the latest."},
    "QueryMemories": {
        "type": "Only memories of this type.",
        "status": "Only memories with this status; open: questions and action items, or, of the given type, those that "
        "hold.",
        "due_after": "Only memories that are due from this date or time on.",
        "due_before": "Only memories that are due before this time, or up to this date: a date, a time, or a delay "
        "such as in 7d.",
        "sort": "updated: the latest first; due: what is due first, first, and what is not due last. Default: due with "
        "due_after or due_before, else updated.",
        "timezone": "The time zone of since, until, due_after and due_before, for values without an offset.",
        "include_completed": "Also find memories in completed sessions when no session_id is given.",
    },
    "DeleteMemory": {"key": "The key of the memory to delete, with all its revisions."},
    "Search": {
        "q": "A question or words, in any language; phrases in quotation marks, and a minus before words to exclude.",
        "in": "The areas to search. Default: all.",
        "type": "Only memories or artifacts of this type.",
    },
    "DelegateTask": {
        "description": "The work to do, with all the context that the agent needs: it has not seen the conversation.",
        "title": "A short title that also works when read aloud. Default: the first line of the description.",
        "task_id": "An id within the session. Default: derived from the description.",
        "agent_name": "The agent to assign. Default: any agent that accepts the task_type.",
        "task_type": "The kind of work, such as code or research.",
        "priority": "Tasks with a higher priority are claimed first.",
        "input_data": "Any JSON object to pass to the agent with the task.",
        "depends_on": "Ids of tasks in the session that must be completed first.",
        "not_before": "The earliest time to start: a time, a date, or a delay such as in 2h.",
        "max_attempts": "The number of attempts before the task fails.",
        "allow_duplicate": "Create the task even if an identical one was delegated recently and is unfinished.",
    },
    "GetTask": {
        "wait": "The maximum time in seconds to wait until the task finishes or asks a question. It does not need "
        "?wait= in addition."
    },
    "ListTasks": {
        "status": "Only tasks with this status.",
        "agent_name": "Only tasks assigned to this agent.",
        "task_type": "Only tasks of this type.",
    },
    "CancelTask": {"reason": "The reason, kept with the task."},
    "AddArtifact": {
        "name": "The name of the artifact.",
        "content": "The content: text or any other JSON.",
        "artifact_id": "An id within the session. Other content under the same id is a new revision, which keeps an "
        "omitted type, format and task_id, but not metadata. Default: derived from the content.",
        "type": "The kind of artifact, such as code, document or report.",
        "format": "The format of the content, such as markdown or python.",
        "task_id": "The id of the task that produced it, if any.",
        "if_revision": "Add only if this, the revision that you read, is still the latest. 0: only if the id is new.",
    },
    "GetArtifact": {"revision": "The revision to return, counted from 1. Default: the latest."},
    "ListArtifacts": {
        "artifact_id": "List this artifact's revisions, to read with get_artifact, and their sizes; needs session_id.",
        "type": "Only artifacts of this type.",
        "task_id": "Only artifacts of this task.",
    },
    "Batch": {
        "commands": "The commands in order, each with its name and data.",
        "mode": "atomic: all or nothing. partial: each command on its own; check failed and every entry of results.",
    },
}
"""Descriptions of fields of one command, by its class."""


def describe_field(definition: type[Command], field: str) -> str:
    """Return the description of a field, including `session_id` and `id`."""
    if field == "session_id":
        return OWN_SESSION_MEANINGS.get(definition.__name__) or SESSION_MEANINGS[definition.session]
    if field == "id":
        return DELIVERY_ID_MEANING
    return MEANINGS.get(definition.__name__, {}).get(field) or SHARED_MEANINGS[field]

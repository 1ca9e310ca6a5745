"""What each field of a command means, in a sentence for those who send it: for the OpenAPI documents and the reference.

What a field may hold is said by its type in `commands`; what is done with it is decided in `sessions`.
"""

from __future__ import annotations

from models.commands.definitions import Command

SESSION_MEANINGS = {
    "required": "The session that it is about.",
    "optional": "The session that it is about; left out: all sessions that the key may see.",
    "derived": "An id for the session; left out, one is made from the title.",
    "none": "",
}
"""By how a command names its session."""
OWN_SESSION_MEANINGS = {
    "ResumeBundle": "The session that it is about; left out: the latest active one.",
    "Batch": "The session that all of its commands are about; left out: the one that its first command starts.",
}
DELIVERY_ID_MEANING = (
    "A delivery id of your own, such as a UUID: what is sent again under the same one takes effect once."
)

SHARED_MEANINGS = {
    "answer": "The answer; the task goes back to the queue with it.",
    "artifact_id": "The id of the artifact.",
    "cursor": "The next_cursor of the page before.",
    "key": "The key of the memory.",
    "limit": "How many a page has at most.",
    "max_characters": "How long the answer may get; longer texts and lists are cut, and say so.",
    "metadata": "Any JSON object of your own.",
    "offset": "Where to go on in a long text: the next_offset of the answer before.",
    "participants": "Who takes part; any names.",
    "since": "Only what is from then on: a time, a date, or an age such as 7d.",
    "tags": "Only those with any of these tags.",
    "task_id": "The id of the task.",
    "timezone": "Time zone for since and until if they have none.",
    "until": "Only what is from before then: a time, an age such as 7d, or a date, which is still included.",
}
"""Of fields that mean the same in most commands."""

MEANINGS: dict[str, dict[str, str]] = {
    "CreateSession": {
        "title": "What the session is called, also when it is read aloud; left out, it is the session_id.",
        "context": "What somebody who joins later should know.",
    },
    "RenameSession": {"title": "The new title."},
    "CompleteSession": {
        "open_tasks": "What to do about tasks that are not finished: refuse names them, cancel cancels them all."
    },
    "DeleteSession": {"confirm": "The id of the session once more; anything else is refused."},
    "ListSessions": {"filter": "Only sessions in this state."},
    "ConversationChunk": {
        "chunk_id": "Its id within the session; left out, one is made from the content.",
        "content": "The conversation itself.",
        "format": "Whether it is what was said, a summary of it, or the transcript of a recording.",
        "start_time": "When it began; a time, a date, or an age such as 7d.",
        "end_time": "When it ended, in the same form.",
        "participants": "Who spoke.",
        "extracted_items": "What was found in it: lists of texts or other JSON; each becomes a memory of its type.",
    },
    "StoreMemory": {
        "type": "What kind of memory it is; general for a new one, unless said.",
        "key": "Its name within the session: any change under the same key is a new revision; left out, one is made.",
        "content": "What to remember: a text or any other JSON. It comes back exactly as it was sent.",
        "tags": "Words to find it by; [] takes all away; left out, they stay.",
        "status": "Whether it is still open; a new one is, unless said, and so is one that is said again.",
        "if_revision": "Store only if this is the latest revision; 0: only if the key is new.",
    },
    "RetrieveMemory": {"revision": "An older revision; left out, the latest."},
    "QueryMemories": {
        "type": "Only memories of this type.",
        "status": "Only memories in this state.",
    },
    "DeleteMemory": {"key": "The key of the memory, which goes with all its revisions."},
    "Search": {
        "q": "What to look for, in plain words; a phrase in quotes, and a minus before a word that must not be there.",
        "in": "Where to look; left out, everywhere.",
        "type": "Only memories or artifacts of this type.",
    },
    "DelegateTask": {
        "description": "What is to be done, with all that the agent has to know: it has not heard the conversation.",
        "task_id": "Its id within the session; left out, one is made from the description.",
        "agent_name": "The agent that it is for; left out, any agent for that task_type.",
        "task_type": "The kind of work, such as code or research.",
        "priority": "Higher ones are done first.",
        "input_data": "Any JSON object that the agent gets with the task.",
        "depends_on": "Tasks of the session that must be completed before.",
        "not_before": "When it may begin at the earliest: a time, a date, or a time to come such as in 2h.",
        "max_attempts": "How often it is tried before it counts as failed.",
        "allow_duplicate": "Make another task although the same was delegated just now and is not finished.",
    },
    "GetTask": {
        "wait": "Seconds to wait at most until the task is finished or asks something; it needs no ?wait= besides."
    },
    "ListTasks": {
        "status": "Only tasks in this state.",
        "agent_name": "Only tasks for this agent.",
        "task_type": "Only tasks of this kind.",
    },
    "CancelTask": {"reason": "Why, for those who look at it later."},
    "AddArtifact": {
        "name": "What it is called.",
        "content": "The work itself: a text or any other JSON.",
        "artifact_id": "Its id within the session; left out, one is made from the content.",
        "type": "The kind of work, such as code, document or report.",
        "format": "How to read the content, such as markdown or python.",
        "task_id": "The task that it comes from, if any.",
    },
    "ListArtifacts": {
        "type": "Only artifacts of this type.",
        "task_id": "Only artifacts of this task.",
    },
    "Batch": {
        "commands": "The commands in order, each with its name and its data.",
        "mode": "atomic: all or nothing. partial: each for itself; look at failed and at each of results.",
    },
}
"""Of fields of one command, by its definition."""


def describe_field(definition: type[Command], field: str) -> str:
    """What a field means, `session_id` and `id` among them."""
    if field == "session_id":
        return OWN_SESSION_MEANINGS.get(definition.__name__) or SESSION_MEANINGS[definition.session]
    if field == "id":
        return DELIVERY_ID_MEANING
    return MEANINGS.get(definition.__name__, {}).get(field) or SHARED_MEANINGS[field]

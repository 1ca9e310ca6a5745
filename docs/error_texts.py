"""What causes each error, and what to do about it: the entries of the reference. Their codes are found in the source by
`error_codes`, and a test compares the two."""

from __future__ import annotations

from typing import NamedTuple


class Text(NamedTuple):
    """An entry."""

    cause: str
    remedy: str


SERVED: dict[str, Text] = {
    "bad_request": Text("What arrived is not HTTP, or its `Host` is missing.", "Send it with a usual HTTP client."),
    "not_json": Text("The body is not JSON.", "Put keys and texts into double quotes; escape line breaks as `\\n`."),
    "not_an_object": Text(
        "The body is JSON, but a list or a text.", "Send one object; for several commands a `batch`."
    ),
    "undecodable": Text(
        "The body is not compressed as `Content-Encoding` says.", "Send it as it is, without that header."
    ),
    "repeated_key": Text("An object has the key in `field` twice.", "Give each key once: readers take either value."),
    "key_missing": Text("There is no key in the request.", "Send it in the header `X-API-Key`."),
    "unknown_key": Text(
        "The key is wrong, was revoked, or was made a moment ago.",
        "Wait 5 s if it is new; else ask the user. Do not guess.",
    ),
    "unauthorized": Text(
        "What was sent as a key is something else, such as the token of a hook.", "Use it as `hint` says."
    ),
    "signature_missing": Text("Only some of a signature's headers are there.", "Send all of them, or a key instead."),
    "signature_invalid": Text("The signature is not over this body with our secret.", "Sign the bytes that are sent."),
    "clock_skew": Text(
        "The time in the signature is more than 5 minutes off.", "Set the clock; sign each attempt anew."
    ),
    "forbidden": Text(
        "The key lacks the scope that `expected` names, or is for other sessions.",
        "Tell the user what is missing; another key is needed.",
    ),
    "address_not_allowed": Text(
        "Requests from this address are not taken.", "Tell the operator, whose setting `ALLOWED_IPS` says which are."
    ),
    "wrong_origin": Text("A web page sent this to `/mcp`.", "Use an MCP client that is not a web page."),
    "wrong_host": Text("`/mcp` was asked under another name than the relay's.", "Use its own URL (`PUBLIC_URL`)."),
    "too_many_bodies": Text(
        "Too many signed bodies arrive, and this one was among the slowest.", "Wait for `Retry-After`; send it at once."
    ),
    "too_many_parameters": Text("The URL has more parameters than any address takes.", "Send those that it takes."),
    "not_found": Text("Unknown URL.", "`GET /openapi.json` lists all endpoints."),
    "session_not_found": Text(
        "No session has this id, or none is active.", "Take one that `hint` names, or `create_session`."
    ),
    "memory_not_found": Text("No memory has this key, or not this revision.", "Take one that `hint` names."),
    "task_not_found": Text("No task of the session has this id.", "Take one that `hint` names, or `list_tasks`."),
    "artifact_not_found": Text(
        "No artifact of the session has this id.", "Take one that `hint` names, or `list_artifacts`."
    ),
    "delivery_not_found": Text("Nothing was accepted under this id.", "Send the command; it is not stored."),
    "dead_letter_not_found": Text("No dead letter has this id.", "`GET /v1/dead-letters` lists them."),
    "key_not_found": Text("No key has this name or id.", "`GET /v1/keys` lists them."),
    "unknown_hook": Text("Unknown or revoked hook.", "Create a new one."),
    "unknown_claim": Text("This is no claim token.", "Use the one that the claim was answered with, as it is."),
    "method_not_allowed": Text("The address does not take this method.", "Use one that `expected` names."),
    "too_slow": Text(
        "The request did not arrive in time (408); or a read took too long (422).",
        "Send it again; ask for less: one session, a shorter period, fewer words.",
    ),
    "session_exists": Text("Another session has this id.", "Go on with that one, or take another id, or none."),
    "session_paused": Text("The session is paused and takes no changes.", "Ask the user; then `resume_session`."),
    "session_completed": Text(
        "The session is completed and takes no changes.",
        "Ask the user; then `resume_session`, or `create_session` without a `session_id`.",
    ),
    "chunk_exists": Text("Other conversation has this `chunk_id`.", "Take another id, or none."),
    "task_exists": Text("Another task has this `task_id`.", "Take another id, or none."),
    "artifact_exists": Text("Another artifact has this `artifact_id`.", "Take another id, or none."),
    "revision_conflict": Text(
        "Somebody has stored another revision meanwhile.",
        "`retrieve_memory`, then store again with that `if_revision`.",
    ),
    "delivery_conflict": Text("Something else was sent under this `id` before.", "Take a new `id` for a new command."),
    "task_finished": Text("The task is finished already.", "`get_task` shows its result."),
    "task_not_asking": Text("The task asks nothing.", "Answer only tasks that are `input_required`."),
    "task_asking": Text("The task waits for an answer.", "An agent claims another one until it is answered."),
    "task_cancelled": Text("The task was cancelled meanwhile.", "An agent stops working on it."),
    "claim_lost": Text("The task was given up, or went to somebody else.", "An agent stops working on it."),
    "name_known": Text("There is, or was, a key with this name.", "Take another name, or send `rotate`."),
    "name_taken": Text("The name stands for another sender.", "Take another name."),
    "pattern_differs": Text("The sender's other keys are for other sessions.", "Take another name."),
    "too_large": Text("The body is larger than the relay takes.", "Split it: chunks of 100,000 characters."),
    "unsupported_media_type": Text(
        "The body is declared to be something other than JSON.", "Send `Content-Type: application/json`."
    ),
    "invalid": Text("Something in it has no meaning, as `message` says.", "Mend the `field`; send it again."),
    "invalid_field": Text("The `field` has another form than `expected`.", "Mend it; send it again."),
    "missing_field": Text("The `field` is needed.", "Add it; send it again."),
    "unknown_field": Text("There is no such `field`.", "Rename it as `hint` says, or put it into `metadata`."),
    "unknown_command": Text("There is no such command.", "Take the one that `hint` names; `expected` lists all."),
    "not_a_command": Text("`type` says that it is something else.", "Leave `type` out."),
    "not_confirmed": Text("`confirm` is not the id of the session.", "Ask the user; then repeat the id in it."),
    "dependency_failed": Text(
        "A task would depend on one that failed or was cancelled.", "Delegate that one anew, and depend on the new one."
    ),
    "open_tasks": Text(
        "The session has tasks that are not finished.", 'Wait for them, cancel them, or send `open_tasks: "cancel"`.'
    ),
    "dependency_cycle": Text("Tasks would wait for each other.", "Leave out one of the dependencies."),
    "discarded": Text("It could not be applied, and an operator discarded it.", "Tell the user; it took no effect."),
    "rejected": Text(
        "It was refused before; why was deleted with the session.", "Nothing is to be done: the session is gone."
    ),
    "rate_limited": Text("The sender makes too many requests.", "Wait for as long as `Retry-After` says."),
    "reads_too_slow": Text(
        "The sender's reads that came as commands have used up their time; this one was not done.",
        "Send it again in some seconds, under the same id or another, of a batch this read alone; or read by `GET`. Ask"
        " for less.",
    ),
    "backlog_share": Text(
        "Too many of the sender's commands wait to be applied.", "Wait for as long as `Retry-After` says."
    ),
    "answer_share": Text(
        "Answers of this sender that nobody has fetched take up its share of Redis' memory.",
        "Wait for as long as `Retry-After` says; then read again, and wait for the answer.",
    ),
    "answer_too_large": Text("The answer is too large to be passed on.", "Ask for less, with `max_characters`."),
    "dead_letter": Text(
        "It is stored, but a fault in the relay keeps it from taking effect.",
        "Do not send it again. Tell the user: an operator can replay it.",
    ),
    "internal": Text("A fault in the relay.", "Tell the user. Look whether it took effect before sending it again."),
    "unavailable": Text(
        "Something that the relay needs is away, or full.",
        "Wait for as long as `Retry-After` says; then send it again, under the id in the "
        "header `Idempotency-Key` of the answer, if it has one.",
    ),
}
TOOLS: dict[str, Text] = {
    "conflict": Text("What is there stands against it, as the message says.", "Do what `hint` says."),
    "usage": Text("The command line is not understood.", "`session-cli COMMAND --help`."),
    "failed": Text("Anything else.", "The message says what."),
    "settings": Text("A setting is missing or not valid.", "Set the variable that the message names."),
    "no_relay": Text("What answers at `RELAY_URL` is not a relay.", "Look at the address."),
    "pending": Text("The command is stored, but not yet applied.", "Do not send it again; ask later."),
    "looks_like_an_option": Text(
        "A task begins with `-`, so that the agent's command would take it for an option.",
        "Let it begin with another character.",
    ),
    "schema_differs": Text("The database is of another version.", "`session-cli db upgrade`, or update the program."),
    "migration_failed": Text("The tables could not be brought to this version.", "`hint` has the end of the output."),
    "postgres_tool": Text("A program of Postgres is missing, or has failed.", "The message says which."),
    "broken_file": Text("A file of the JSON store is damaged.", "Restore it from a backup, or move it away."),
    "broken_archive": Text("The file is not an archive of a JSON store.", "Look at its name."),
    "no_access": Text("A folder cannot be used.", "Look at its owner and its rights."),
    "no_exchange": Text("The file system cannot replace a folder in one step.", "Use another for `DATA_DIR`."),
    "not_ours": Text("A folder belongs to another user.", "Look at its owner, or use another."),
}

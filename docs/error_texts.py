"""Causes and remedies of all errors, for the reference. A test compares them with the codes in the source."""

from __future__ import annotations

from typing import NamedTuple


class Text(NamedTuple):
    """The cause and remedy of one error."""

    cause: str
    remedy: str


SERVED: dict[str, Text] = {
    "bad_request": Text("The request is not valid HTTP, or lacks a `Host`.", "Use an ordinary HTTP client."),
    "not_json": Text("The body is not JSON.", "Put keys and strings in double quotes; escape line breaks as `\\n`."),
    "not_an_object": Text("The body is JSON, but not an object.", "Send one object; for several commands, a `batch`."),
    "undecodable": Text(
        "The body is not compressed as `Content-Encoding` says.", "Send it uncompressed, without that header."
    ),
    "repeated_key": Text(
        "An object has the key in `field` twice.", "Send each key once: JSON readers differ in which they use."
    ),
    "key_missing": Text("The request has no API key.", "Send it in the header `X-API-Key`."),
    "unknown_key": Text(
        "The key is wrong, revoked, or only just created.",
        "Wait 5 s if it is new; otherwise ask the user. Do not guess.",
    ),
    "unauthorized": Text(
        "The value sent as a key is another credential, such as a hook's token.", "Use it as `hint` says."
    ),
    "signature_missing": Text("Some of the signature's headers are missing.", "Send all of them, or a key instead."),
    "signature_invalid": Text(
        "The signature does not match the body and the secret.", "Sign exactly the bytes that you send."
    ),
    "clock_skew": Text(
        "The signature's timestamp is more than 5 minutes off.", "Set the clock; sign each attempt anew."
    ),
    "forbidden": Text(
        "The key lacks the scope in `expected`, or is limited to other sessions.",
        "Tell the user what is missing; use another key.",
    ),
    "address_not_allowed": Text("The client's address is not allowed.", "Ask the operator to add it to `ALLOWED_IPS`."),
    "wrong_origin": Text("A web page called `/mcp`.", "Use an MCP client outside a browser."),
    "wrong_host": Text(
        "The request to `/mcp` names another host than the relay's.", "Use the relay's own URL (`PUBLIC_URL`)."
    ),
    "too_many_bodies": Text(
        "Too many signed bodies were arriving, and this one was the oldest.",
        "Wait for `Retry-After`; then send it without pauses.",
    ),
    "too_many_parameters": Text("The URL has too many parameters.", "Send only those that the endpoint defines."),
    "not_found": Text("Unknown URL.", "`GET /openapi.json` lists all endpoints."),
    "session_not_found": Text(
        "No session has this id, or none is active.", "Use an id from `hint`, or `create_session`."
    ),
    "memory_not_found": Text("No memory has this key, or it lacks this revision.", "Use one from `hint`."),
    "task_not_found": Text("No task of the session has this id.", "Use an id from `hint`, or `list_tasks`."),
    "artifact_not_found": Text(
        "No artifact of the session has this id.", "Use an id from `hint`, or `list_artifacts`."
    ),
    "delivery_not_found": Text(
        "The relay accepted no webhook with this id.", "Send the command again; it was not stored."
    ),
    "dead_letter_not_found": Text("No dead letter has this id.", "`GET /v1/dead-letters` lists them."),
    "key_not_found": Text("No key has this name or id.", "`GET /v1/keys` lists them."),
    "unknown_hook": Text("Unknown or revoked hook.", "Create a new one."),
    "unknown_claim": Text("Invalid claim token.", "Use the `claim_token` from the claim's response, unchanged."),
    "method_not_allowed": Text("The endpoint does not support this method.", "Use one from `expected`."),
    "too_slow": Text(
        "The request did not arrive in time (408), or a read took too long (422).",
        "Retry (408), or ask for less (422): one session, a shorter period, fewer words.",
    ),
    "session_exists": Text("Another session has this id.", "Continue that session, or use another id, or omit it."),
    "session_paused": Text("The session is paused and accepts no changes.", "Ask the user; then `resume_session`."),
    "session_completed": Text(
        "The session is completed and accepts no changes.",
        "Ask the user; then `resume_session`, or `create_session` without a `session_id`.",
    ),
    "chunk_exists": Text("Another chunk has this `chunk_id`.", "Use another id, or omit it."),
    "task_exists": Text("Another task has this `task_id`.", "Use another id, or omit it."),
    "revision_conflict": Text(
        "Another client has stored a newer revision.",
        "`retrieve_memory` or `get_artifact`, then store again with that `if_revision`.",
    ),
    "delivery_conflict": Text("Another command was sent with this `id`.", "Use a new `id` for a new command."),
    "task_finished": Text("The task has already finished.", "Read its result with `get_task`."),
    "task_not_asking": Text("The task has not asked a question.", "Answer only tasks with status `input_required`."),
    "task_asking": Text("The task waits for an answer.", "The agent claims another task until then."),
    "task_cancelled": Text("The task was cancelled.", "The agent stops working on it."),
    "claim_lost": Text("The claim was released, or another agent holds the task.", "The agent stops working on it."),
    "name_known": Text("A key with this name exists or existed.", "Use another name, or send `rotate`."),
    "name_taken": Text("Another sender uses this name.", "Use another name."),
    "pattern_differs": Text(
        "The sender's other keys have another session pattern.", "Use the same pattern, or another name."
    ),
    "too_large": Text("The body is larger than the relay accepts.", "Split it into chunks of 100,000 characters."),
    "unsupported_media_type": Text("The body's content type is not JSON.", "Send `Content-Type: application/json`."),
    "invalid": Text("A value is invalid, as `message` says.", "Fix the `field`; retry."),
    "invalid_field": Text("The `field` does not have the form in `expected`.", "Fix it; retry."),
    "missing_field": Text("The `field` is required.", "Add it; retry."),
    "unknown_field": Text("Unknown `field`.", "Rename it as `hint` says, or put it in `metadata`."),
    "unknown_command": Text("Unknown command.", "Use the one in `hint`; `expected` lists all."),
    "not_a_command": Text("`type` declares something other than a command.", "Omit `type`."),
    "not_confirmed": Text("`confirm` is not the id of the session.", "Ask the user; then repeat the id in it."),
    "dependency_failed": Text(
        "The task would depend on a failed or cancelled one.", "Delegate that one again, and depend on the new task."
    ),
    "open_tasks": Text(
        "The session has unfinished tasks.", 'Wait for them, cancel them, or send `open_tasks: "cancel"`.'
    ),
    "dependency_cycle": Text("The tasks would wait for each other.", "Remove one of the dependencies."),
    "discarded": Text("The command failed, and an operator discarded it.", "Tell the user that it took no effect."),
    "rejected": Text(
        "The command was rejected earlier; the reason was deleted with the session.",
        "Nothing: the session no longer exists.",
    ),
    "rate_limited": Text("The sender makes too many requests.", "Wait for `Retry-After`; retry."),
    "reads_too_slow": Text(
        "The sender's reads sent as commands have used up their time; this one was not run.",
        "Retry in some seconds, with the same id or another (from a batch, only this read), or read by `GET`. Ask for"
        " less.",
    ),
    "backlog_share": Text("Too many of the sender's commands wait to be applied.", "Wait for `Retry-After`; retry."),
    "answer_share": Text(
        "Responses to this sender that were not fetched use up its share of Redis' memory.",
        "Wait for `Retry-After`; then read again, and wait for the response.",
    ),
    "answer_too_large": Text("The response is too large.", "Ask for less, with `max_characters`."),
    "dead_letter": Text(
        "The command is stored, but could not be applied.",
        "Do not retry. Tell the user that an operator can replay it.",
    ),
    "internal": Text(
        "The relay has an internal error.", "Tell the user. Check whether the command took effect before retrying."
    ),
    "unavailable": Text(
        "A service that the relay needs is unavailable or full.",
        "Wait for `Retry-After`; then retry with the id from the response's header `Idempotency-Key`, if present.",
    ),
}
TOOLS: dict[str, Text] = {
    "conflict": Text("The request conflicts with existing data, as the message says.", "Do what `hint` says."),
    "usage": Text("Invalid command line.", "See `session-cli COMMAND --help`."),
    "failed": Text("Any other failure.", "Read the message."),
    "settings": Text("A setting is missing or invalid.", "Set the variable that the message names."),
    "no_relay": Text("The server at `RELAY_URL` is not a relay.", "Check the URL."),
    "pending": Text("The command is stored, but not yet applied.", "Do not retry; check its delivery later."),
    "looks_like_an_option": Text(
        "A value of the task begins with `-`, so the agent's command would read it as an option.",
        "Start it with another character.",
    ),
    "schema_differs": Text("The database is of another version.", "`session-cli db upgrade`, or update the program."),
    "migration_failed": Text("The migration of the tables failed.", "`hint` has the end of the output."),
    "postgres_tool": Text("A Postgres program is missing or has failed.", "The message names it."),
    "broken_file": Text("A file of the JSON store is damaged.", "Restore it from a backup, or move it away."),
    "broken_archive": Text("The file is not an archive of a JSON store.", "Check the file name."),
    "no_access": Text("A folder is not accessible.", "Check its owner and permissions."),
    "no_exchange": Text("The file system cannot exchange two folders atomically.", "Put `DATA_DIR` on another one."),
    "not_ours": Text("A folder belongs to another user.", "Change its owner, or use another folder."),
}

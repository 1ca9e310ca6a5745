"""The relay's routes, shared by the app, the OpenAPI document, clients and logs.

`relay` and `api` implement them and attach a handler to each by its name.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple
from urllib.parse import quote

Tag = Literal["commands", "webhooks", "reading", "agents", "operating", "service"]

_PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")


class Address(NamedTuple):
    """A method and a path. Parameters are in braces; one that ends in `:path` may contain slashes."""

    method: str
    path: str
    tag: Tag | None = None
    """Its section in the OpenAPI document; None for routes that other protocols define."""
    more_methods: tuple[str, ...] = ()

    @property
    def template(self) -> str:
        """The path for display, with the bare names of its parameters."""
        return _PARAMETER.sub(r"{\1}", self.path)


ADDRESSES: dict[str, Address] = {
    "index": Address("GET", "/", "service"),
    "page_file": Address("GET", "/static/{file}"),
    "page_sign_in": Address("POST", "/sign-in"),
    "page_sign_out": Address("POST", "/sign-out"),
    "page_status": Address("GET", "/status"),
    "page_refusals": Address("GET", "/refusals"),
    "page_agents": Address("GET", "/agents"),
    "page_delivery": Address("GET", "/deliveries/{delivery_id}"),
    "page_hooks": Address("GET", "/hooks"),
    "page_create_hook": Address("POST", "/hooks"),
    "page_deliveries": Address("GET", "/deliveries"),
    "page_dead_letters": Address("GET", "/dead-letters"),
    "page_dead_letter": Address("GET", "/dead-letters/{delivery_id}"),
    "page_replay": Address("POST", "/dead-letters/{delivery_id}/replay"),
    "page_discard": Address("POST", "/dead-letters/{delivery_id}/discard"),
    "page_keys": Address("GET", "/keys"),
    "page_create_key": Address("POST", "/keys"),
    "page_revoke_key": Address("POST", "/keys/{name_or_id}/revoke"),
    "page_new_session": Address("POST", "/sessions"),
    "page_command": Address("POST", "/sessions/{session_id}/commands/{command}"),
    "page_session": Address("GET", "/sessions/{session_id}"),
    "page_memories": Address("GET", "/sessions/{session_id}/memories"),
    "page_memory": Address("GET", "/sessions/{session_id}/memories/{key:path}"),
    "page_tasks": Address("GET", "/sessions/{session_id}/tasks"),
    "page_task": Address("GET", "/sessions/{session_id}/tasks/{task_id}"),
    "page_artifacts": Address("GET", "/sessions/{session_id}/artifacts"),
    "page_artifact": Address("GET", "/sessions/{session_id}/artifacts/{artifact_id}"),
    "page_download": Address("GET", "/sessions/{session_id}/artifacts/{artifact_id}/download"),
    "page_journal": Address("GET", "/sessions/{session_id}/journal"),
    "page_export": Address("GET", "/sessions/{session_id}/export"),
    "page_delete": Address("POST", "/sessions/{session_id}/delete"),
    "page_events": Address("GET", "/sessions/{session_id}/events"),
    "health": Address("GET", "/healthz", "service"),
    "readiness": Address("GET", "/readyz", "service"),
    "metrics": Address("GET", "/metrics", "service"),
    "openapi": Address("GET", "/openapi.json", "service"),
    "instructions": Address("GET", "/llm-instructions", "service"),
    "docs": Address("GET", "/docs", "service"),
    "docs_file": Address("GET", "/docs/{file}", "service"),
    "webhook": Address("POST", "/v1/webhook", "webhooks"),
    "webhook_alias": Address("POST", "/webhook", "webhooks"),
    "hook": Address("POST", "/v1/hooks/{token}", "webhooks", more_methods=("HEAD",)),
    "command": Address("POST", "/v1/commands/{command}", "commands"),
    "read_sessions": Address("GET", "/v1/sessions", "reading"),
    "read_session": Address("GET", "/v1/sessions/{session_id}", "reading"),
    "read_session_summary": Address("GET", "/v1/sessions/{session_id}/summary", "reading"),
    "read_transcript": Address("GET", "/v1/sessions/{session_id}/transcript", "reading"),
    "read_session_memories": Address("GET", "/v1/sessions/{session_id}/memories", "reading"),
    "read_memory": Address("GET", "/v1/sessions/{session_id}/memories/{key:path}", "reading"),
    "read_session_tasks": Address("GET", "/v1/sessions/{session_id}/tasks", "reading"),
    "read_task": Address("GET", "/v1/sessions/{session_id}/tasks/{task_id}", "reading"),
    "read_session_artifacts": Address("GET", "/v1/sessions/{session_id}/artifacts", "reading"),
    "read_artifact": Address("GET", "/v1/sessions/{session_id}/artifacts/{artifact_id}", "reading"),
    "read_events": Address("GET", "/v1/sessions/{session_id}/events", "reading"),
    "export_session": Address("GET", "/v1/sessions/{session_id}/export", "reading"),
    "read_search": Address("GET", "/v1/search", "reading"),
    "read_activity": Address("GET", "/v1/activity", "reading"),
    "read_memories": Address("GET", "/v1/memories", "reading"),
    "read_tasks": Address("GET", "/v1/tasks", "reading"),
    "read_artifacts": Address("GET", "/v1/artifacts", "reading"),
    "read_agents": Address("GET", "/v1/agents", "agents"),
    "register_agent": Address("POST", "/v1/agents", "agents"),
    "claim_task": Address("POST", "/v1/tasks/claim", "agents"),
    "heartbeat_claim": Address("POST", "/v1/claims/{claim_token}/heartbeat", "agents"),
    "start_claim": Address("POST", "/v1/claims/{claim_token}/start", "agents"),
    "release_claim": Address("POST", "/v1/claims/{claim_token}/release", "agents"),
    "complete_claim": Address("POST", "/v1/claims/{claim_token}/complete", "agents"),
    "fail_claim": Address("POST", "/v1/claims/{claim_token}/fail", "agents"),
    "ask_claim": Address("POST", "/v1/claims/{claim_token}/ask", "agents"),
    "read_deliveries": Address("GET", "/v1/deliveries", "operating"),
    "read_delivery": Address("GET", "/v1/deliveries/{delivery_id}", "operating"),
    "read_dead_letters": Address("GET", "/v1/dead-letters", "operating"),
    "replay_dead_letters": Address("POST", "/v1/dead-letters/replay", "operating"),
    "read_dead_letter": Address("GET", "/v1/dead-letters/{delivery_id}", "operating"),
    "discard_dead_letter": Address("DELETE", "/v1/dead-letters/{delivery_id}", "operating"),
    "replay_dead_letter": Address("POST", "/v1/dead-letters/{delivery_id}/replay", "operating"),
    "read_status": Address("GET", "/v1/status", "operating"),
    "read_refusals": Address("GET", "/v1/refusals", "operating"),
    "whoami": Address("GET", "/v1/whoami", "operating"),
    "read_keys": Address("GET", "/v1/keys", "operating"),
    "create_key": Address("POST", "/v1/keys", "operating"),
    "revoke_key": Address("DELETE", "/v1/keys/{name_or_id}", "operating"),
    "import_session": Address("POST", "/v1/import", "operating"),
    "mcp": Address("POST", "/mcp"),
    "oauth_server": Address("GET", "/.well-known/oauth-authorization-server", more_methods=("OPTIONS",)),
    "oauth_resource": Address("GET", "/.well-known/oauth-protected-resource", more_methods=("OPTIONS",)),
    "oauth_resource_mcp": Address("GET", "/.well-known/oauth-protected-resource/mcp", more_methods=("OPTIONS",)),
    "oauth_register": Address("POST", "/oauth/register", more_methods=("OPTIONS",)),
    "oauth_token": Address("POST", "/oauth/token", more_methods=("OPTIONS",)),
    "oauth_revoke": Address("POST", "/oauth/revoke", more_methods=("OPTIONS",)),
    "oauth_authorize": Address("GET", "/oauth/authorize"),
    "show_sign_in": Address("GET", "/oauth/sign-in"),
    "sign_in": Address("POST", "/oauth/sign-in"),
}
"""Routes by name, which is the operationId of those with a tag, except for `command`: it is one operation per
command."""


def template_of(name: str) -> str:
    """Return the path of a route with its parameters in braces."""
    return ADDRESSES[name].template


def path_to(name: str, /, **parameters: str) -> str:
    """Return the path of a route with these parameters, percent-encoded."""
    return _PARAMETER.sub(lambda found: quote(parameters[found[1]], safe=""), ADDRESSES[name].path)


def request_to(name: str, /, **parameters: str) -> tuple[str, str]:
    """Return the method and path of a route with these parameters."""
    return ADDRESSES[name].method, path_to(name, **parameters)

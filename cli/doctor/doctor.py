"""A look at everything: the relay over HTTP, and its servers directly where they are known and it does not tell."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.http.client import Client
from agent.http.relay_url import is_loopback
from cli.context import CliContext
from cli.doctor.diagnostics import Finding, judge, judge_clock, judge_disk
from cli.doctor.relay_health import Status, fetch_status
from models.errors import RelayError, SettingsError, Unauthorized, Unavailable
from models.settings import read_settings
from models.version import UNKNOWN, version

SERVERS = ("redis", "inbox", "workers", "postgres")


def examine(tool: CliContext) -> Iterator[Finding]:
    """All findings, those of the relay first. Raises nothing that it can tell of as a finding."""
    status: Status = {}
    seen: dict[str, Any] = {}
    try:
        seen = _look_directly(tool)
    except (RelayError, ImportError) as error:
        yield Finding("servers", "warning", f"They could not be looked at directly: {error}")
    try:
        client = tool.client
    except SettingsError as error:
        yield Finding("relay", "warning" if seen else "trouble", error.message, error.hint or "")
    else:
        yield from _examine_relay(client, status)
    yield from _compare(status, seen)
    yield from judge({**status, **{name: seen[name] for name in seen if not _is_told(status, name)}})
    yield from _examine_folder(tool)


def _examine_relay(client: Client, status: Status) -> Iterator[Finding]:
    """What the relay tells, put into `status`, and what can be said of the way to it."""
    try:
        status |= fetch_status(client)
    except Unauthorized as error:
        remedy = "Make a key with `session-cli keys create` under one that may, and `session-cli login` with it."
        yield Finding("relay", "ok", f"It answers at {client.url}.")
        yield Finding("key", "trouble", error.message, remedy)
        return
    except Unavailable as error:
        remedy = error.hint or "Start it (`make up`, or `python -m api`), or `session-cli login` to another."
        yield Finding("relay", "trouble", error.message, remedy)
        return
    except RelayError as error:
        yield Finding("relay", "trouble", error.message, error.hint or "")
        return
    yield Finding("relay", "ok", f"It answers at {client.url}.")
    yield _key(status)
    yield _encryption(client.url)
    if now := status.get("now"):
        yield judge_clock(now)
    yield _version(status)


def _key(status: Status) -> Finding:
    if key := status.get("key"):
        scopes = key["scopes"]
        return Finding("key", "ok", f"It is that of {key['name']}, and may {', '.join(scopes)}.")
    return Finding("key", "warning", f"Little can be checked: {status['hidden']}", "Use a key for all sessions.")


def _encryption(url: str) -> Finding:
    if url.startswith("https:"):
        return Finding("encryption", "ok", "The connection is encrypted, and its certificate was verified.")
    if is_loopback(url):
        return Finding("encryption", "ok", "The connection does not leave this machine.")
    remedy = "Put the relay behind a proxy with TLS, and `session-cli login` to its https:// address."
    return Finding("encryption", "warning", "The key goes over the network in plain text.", remedy)


def _version(status: Status) -> Finding:
    theirs, ours = status.get("version"), version()
    if theirs in (None, UNKNOWN) or ours == UNKNOWN:
        return Finding("version", "ok", f"session-cli is {ours}, the relay {theirs or 'unknown'}.")
    if theirs != ours:
        remedy = "Use the session-cli that came with the relay."
        return Finding("version", "warning", f"session-cli is {ours}, but the relay is {theirs}.", remedy)
    return Finding("version", "ok", f"session-cli and relay are {ours}.")


def _look_directly(tool: CliContext) -> dict[str, Any]:
    """What the servers tell whose addresses are known here."""
    from local.operator.probe import observe_servers
    from local.operator.server_discovery import known_servers

    servers = known_servers(tool.surroundings)
    if not (servers.database_url or servers.redis_url):
        return {}
    return observe_servers(servers, read_settings(tool.surroundings))


def _compare(status: Status, seen: dict[str, Any]) -> Iterator[Finding]:
    """Servers that answer here, but not to the relay."""
    for name, variable in (("redis", "REDIS_URL"), ("postgres", "DATABASE_URL")):
        theirs, ours = status.get(name), seen.get(name)
        if theirs and theirs["state"] != "ok" and ours and ours["state"] == "ok":
            detail = f"The relay does not reach {name.capitalize()}, but it answers here."
            yield Finding(f"way to {name}", "trouble", detail, f"Compare the relay's {variable} with the one here.")


def _is_told(status: Status, name: str) -> bool:
    """Whether the relay tells of this part in full: of a server that it does not reach only that."""
    part = status.get(name)
    return part is not None and (name not in ("redis", "postgres") or "needed_revision" in part or "durable" in part)


def _examine_folder(tool: CliContext) -> Iterator[Finding]:
    from local.operator.probe import free_share, leftovers

    data_dir = Path(read_settings(tool.surroundings).data_dir)
    if (room := free_share(data_dir)) is None:
        return
    yield judge_disk(*room, str(data_dir))
    if left := leftovers(data_dir):
        told = ", ".join(str(path.relative_to(data_dir)) for path in left[:5])
        detail = f"Killed commands have left something in {data_dir}: {told}."
        yield Finding("leftovers", "warning", detail, "They are of no use, and may be deleted.")
    else:
        yield Finding("leftovers", "ok", f"Nothing useless lies in {data_dir}.")

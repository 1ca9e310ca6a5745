"""Runs all checks: on the relay over HTTP, and on its servers directly for parts that the relay does not report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent.http.client import Client
from agent.http.relay_url import is_loopback
from cli.context import CliContext
from cli.doctor.findings import Finding, judge, judge_clock, judge_disk
from cli.doctor.relay_health import Status, fetch_status
from models.errors import RelayError, SettingsError, Unauthorized, Unavailable
from models.process.missing_packages import describe_missing
from models.settings import read_settings
from models.version import UNKNOWN, version

SERVERS = ("redis", "inbox", "workers", "postgres")


def examine(tool: CliContext) -> Iterator[Finding]:
    """Yield all findings, those of the relay first. Errors become findings where possible."""
    status: Status = {}
    seen: dict[str, Any] = {}
    try:
        seen = _probe_servers(tool)
    except RelayError as error:
        yield Finding("servers", "warning", f"Cannot be checked directly: {error}")
    except ModuleNotFoundError as error:
        yield Finding("servers", "warning", "Cannot be checked directly.", describe_missing(error) or str(error))
    try:
        client = tool.client
    except SettingsError as error:
        yield Finding("relay", "warning" if seen else "trouble", error.message, error.hint or "")
    else:
        yield from _examine_relay(client, status)
    yield from _compare(status, seen)
    yield from judge({**status, **{name: seen[name] for name in seen if not _is_reported(status, name)}})
    yield from _examine_folder(tool)


def _examine_relay(client: Client, status: Status) -> Iterator[Finding]:
    """Fetch the relay's status into `status`, and check the key and the connection."""
    try:
        status |= fetch_status(client)
    except Unauthorized as error:
        remedy = "Create a key with `session-cli keys create`, using an admin key, and run `session-cli login` with it."
        yield Finding("relay", "ok", f"Responding at {client.url}.")
        yield Finding("key", "trouble", error.message, remedy)
        return
    except Unavailable as error:
        remedy = error.hint or "Start it (`make up`, or `python -m api`), or use another with `session-cli login`."
        yield Finding("relay", "trouble", error.message, remedy)
        return
    except RelayError as error:
        yield Finding("relay", "trouble", error.message, error.hint or "")
        return
    yield Finding("relay", "ok", f"Responding at {client.url}.")
    yield _key(status)
    yield _encryption(client.url)
    if now := status.get("now"):
        yield judge_clock(now)
    yield _version(status)


def _key(status: Status) -> Finding:
    if key := status.get("key"):
        scopes = key["scopes"]
        return Finding("key", "ok", f"Key of {key['name']}, with the scopes {', '.join(scopes)}.")
    return Finding("key", "warning", f"Most checks were skipped: {status['hidden']}", "Use a key for all sessions.")


def _encryption(url: str) -> Finding:
    if url.startswith("https:"):
        return Finding("encryption", "ok", "Encrypted, with a verified certificate.")
    if is_loopback(url):
        return Finding("encryption", "ok", "Not needed: the connection stays on this machine.")
    remedy = "Put the relay behind a TLS proxy, and run `session-cli login` with its https:// URL."
    return Finding("encryption", "warning", "The key is sent over the network unencrypted.", remedy)


def _version(status: Status) -> Finding:
    theirs, ours = status.get("version"), version()
    if theirs in (None, UNKNOWN) or ours == UNKNOWN:
        return Finding("version", "ok", f"session-cli {ours}, relay {theirs or 'unknown'}.")
    if theirs != ours:
        remedy = "Use the session-cli of the relay's version."
        return Finding("version", "warning", f"session-cli is {ours}, but the relay is {theirs}.", remedy)
    return Finding("version", "ok", f"session-cli and the relay are both {ours}.")


def _probe_servers(tool: CliContext) -> dict[str, Any]:
    """Query the servers whose URLs are known here."""
    from local.operator.server_discovery import known_servers

    servers = known_servers(tool.surroundings)
    if not (servers.database_url or servers.redis_url):
        return {}
    from local.operator.probe import observe_servers  # Needs more packages than the command line is installed with.

    return observe_servers(servers, read_settings(tool.surroundings))


def _compare(status: Status, seen: dict[str, Any]) -> Iterator[Finding]:
    """Find servers that respond here, but not to the relay."""
    for name, variable in (("redis", "REDIS_URL"), ("postgres", "DATABASE_URL")):
        theirs, ours = status.get(name), seen.get(name)
        if theirs and theirs["state"] != "ok" and ours and ours["state"] == "ok":
            detail = f"The relay cannot reach {name.capitalize()}, but this machine can."
            yield Finding(f"way to {name}", "trouble", detail, f"Compare the relay's {variable} with the local one.")


def _is_reported(status: Status, name: str) -> bool:
    """True if the relay reports this part in full; of an unreachable server it reports only that state."""
    part = status.get(name)
    return part is not None and (name not in ("redis", "postgres") or "needed_revision" in part or "durable" in part)


def _examine_folder(tool: CliContext) -> Iterator[Finding]:
    from local.operator.data_folder import free_share, leftovers

    data_dir = Path(read_settings(tool.surroundings).data_dir)
    if (room := free_share(data_dir)) is None:
        return
    yield judge_disk(*room, str(data_dir))
    if left := leftovers(data_dir):
        names = ", ".join(str(path.relative_to(data_dir)) for path in left[:5])
        detail = f"{data_dir} contains temporary files of killed commands: {names}."
        yield Finding("leftovers", "warning", detail, "Delete them; they are not used.")
    else:
        yield Finding("leftovers", "ok", f"No temporary files in {data_dir}.")

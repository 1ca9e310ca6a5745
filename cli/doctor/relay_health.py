"""Fetches a relay's status over HTTP, and summarizes it as a line for each part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agent.http.client import Client
from cli.output.humanize import count
from models.errors import Forbidden, NotFound, Unavailable
from models.routes import path_to, request_to

PROBE = 500
"""The limit up to which agents are counted."""
BYTES = ((2**30, "GB"), (2**20, "MB"), (2**10, "kB"))

Status = dict[str, Any]


def fetch_status(client: Client) -> Status:
    """Fetch the relay's status, URL and agents. Parts that it does not report are None: a relay-only process reports
    little, and a key for some sessions sees only the public part. Raises Unavailable if the relay does not respond, and
    Unauthorized."""
    index = client.get("/")
    known: Status = {"url": client.url, "version": index.get("version"), "hidden": None}
    try:
        return {**known, **client.get(path_to("read_status")), "agents": _agents(client)}
    except NotFound:
        known["hidden"] = "a relay-only process does not report more"
    except Forbidden as error:
        known["hidden"] = error.message
    ready = client.call(*request_to("readiness"), accepted=(503,))[1]
    servers: Status = {name: {"state": ready[name]} for name in ("redis", "postgres") if name in ready}
    return {"redis": None, "postgres": None, "webhooks": ready.get("webhooks"), **known, **servers}


def parts(status: Status) -> Iterator[dict[str, str]]:
    """Yield a line for each part, with its state: ok, waiting, weak, failed, refused, unavailable, or hidden. Of the
    shards, only those with a backlog have one."""
    yield _part("relay", "ok", f"{status['url']}, version {status['version'] or 'unknown'}")
    if webhooks := status.get("webhooks"):
        yield _part("webhooks", "ok" if webhooks["taken"] else "refused", webhooks["reason"] or "accepted")
    for name in ("redis", "postgres"):
        if server := status[name]:
            yield _part(name, _state(server), ", ".join(_details(server)))
    if status["hidden"]:
        yield _part("more", "hidden", status["hidden"])
        return
    if workers := status["workers"]:
        yield _part(
            "workers",
            "ok" if workers["alive"] and workers["sweeper"] else "unavailable",
            f"{workers['alive']:,} alive, {workers['busy']:,} busy, sweeper {_running(workers['sweeper'])}",
        )
    if (failed := status["postgres"].get("dead_letters")) is not None:
        yield _part("dead letters", "failed" if failed else "ok", f"{failed:,}")
    if parked := status["postgres"].get("parked_events"):
        yield _part("parked events", "waiting", f"{parked:,}")
    if search := status["postgres"].get("search"):
        yield _part("search", "waiting" if _is_incomplete(search) else "ok", format_search(search))
    if agents := status["agents"]:
        yield _part("agents", "ok", f"{agents['online']:,} online of {agents['known']:,}")
    if inbox := status["inbox"]:
        yield _part("inbox", "waiting" if inbox["waiting"] else "ok", format_backlog(inbox))
        for shard in inbox["shards"]:
            if shard["waiting"]:
                detail = f"{shard['waiting']:,}{_since(shard['oldest_seconds'])}"
                yield _part(f"shard {shard['shard']:02d}", "waiting", detail)


def is_well(status: Status) -> bool:
    """True if no reported part is unavailable and webhooks are accepted."""
    return all(part["state"] not in ("unavailable", "refused") for part in parts(status))


def format_backlog(inbox: dict[str, Any]) -> str:
    """Describe the backlog: `3 commands waiting, the oldest for 1.0 s (limit 100,000)`."""
    waiting = count(inbox["waiting"], "command")
    return f"{waiting} waiting{_since(inbox['oldest_seconds'])} (limit {inbox['limit']:,})"


def format_search(search: dict[str, Any]) -> str:
    """Describe the search: `by words and meaning (model), 3 of 100 texts not embedded yet`."""
    if search["method"] == "words":
        return f"by words alone: {search['reason']}"
    if search.get("is_loading"):
        return f"by words alone while the model is loading ({search['model']})"
    waiting = search["not_embedded"]
    left = f", {waiting:,} of {search['texts']:,} texts not embedded yet" if waiting else ""
    return f"by words and meaning ({search['model']}){left}"


def format_seconds(seconds: float) -> str:
    """Format a duration: `3.2 s`, `5 minutes`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return count(int(seconds // 60), "minute") if seconds < 7_200 else count(int(seconds // 3_600), "hour")


def format_bytes(number: int) -> str:
    """Format a size: `512 MB`."""
    return next((f"{number / size:.0f} {unit}" for size, unit in BYTES if number >= size), f"{number} bytes")


def _agents(client: Client) -> dict[str, int] | None:
    try:
        items = client.get(path_to("read_agents"), {"limit": PROBE})["items"]
    except Unavailable:
        return None
    return {"online": sum(item["online"] for item in items), "known": len(items)}


def _state(server: dict[str, Any]) -> str:
    if server["state"] == "ok" and server.get("weakness"):
        return "weak"
    behind = server["state"] == "ok" and server.get("revision") != server.get("needed_revision")
    return "failed" if behind else str(server["state"])


def _details(server: dict[str, Any]) -> Iterator[str]:
    if version := server.get("version"):
        yield f"version {version}"
    if "needed_revision" in server and server["state"] == "ok":
        needs = "" if server["revision"] == server["needed_revision"] else f" (requires {server['needed_revision']})"
        yield f"schema {server['revision']}{needs}"
    if "durable" in server:
        yield server["weakness"] or "durable"
    if used := server.get("memory_bytes"):
        limit = server["memory_limit_bytes"]
        yield f"{format_bytes(used)} {f'of {format_bytes(limit)} used' if limit else 'used, without a limit'}"


def _is_incomplete(search: dict[str, Any]) -> bool:
    """True if the search will find more by meaning than now."""
    return bool(search["not_embedded"]) or search.get("is_loading", False)


def _running(is_running: bool) -> str:
    return "running" if is_running else "missing"


def _since(seconds: float | None) -> str:
    return "" if seconds is None else f", the oldest for {format_seconds(seconds)}"


def _part(name: str, state: str, detail: str) -> dict[str, str]:
    return {"part": name, "state": state, "detail": detail}

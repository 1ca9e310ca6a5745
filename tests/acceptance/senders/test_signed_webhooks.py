"""Signed webhooks with the real worker: those of GitHub and others, and the deliveries that can be read afterwards."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime

import httpx
import msgspec
from standardwebhooks import Webhook

from tests.support.clients.signing import GITHUB_SECRET, WEBHOOK_SECRET
from tests.support.processes.stack import Payload, Stack, envelope, new_id, wait_for


def test_signed_commands_take_effect_and_other_events_are_recorded_as_ignored(fuzzed: Stack) -> None:
    session_id = new_id("walk")
    with httpx.Client(base_url=fuzzed.url) as sender:
        created = send(sender, envelope("create_session", session_id, title="Walk"), new_id("msg"), path="?wait=30")
        assert created.json()["data"] == {"session_id": session_id, "created": True}
        event = send(sender, {"type": "user.created", "data": {"name": "the-payload"}}, new_id("msg")).json()
        said = envelope("store_memory", session_id, key="k", content="from GitHub")
        dispatched = send_github(sender, {"action": "note", "client_payload": said}, event="repository_dispatch")
        pushed = send_github(sender, {"ref": f"refs/heads/{session_id}"}, event="push")
        again = send_github(sender, {"ref": f"refs/heads/{session_id}"}, event="push")
    assert again == pushed | {"duplicate": True}
    fuzzed.wait_until_drained()

    for receipt, source in ((event, "signing"), (pushed, "github")):
        kept = fuzzed.client.get(receipt["status_url"]).json()
        assert (kept["status"], kept["source"], kept["reason"]) == ("ignored", source, receipt["reason"])
        assert "the-payload" not in msgspec.json.encode(kept).decode()
    listed = fuzzed.client.get("/v1/deliveries", params={"status": "ignored"}).json()["items"]
    assert [item["delivery_id"] for item in listed] == [pushed["delivery_id"], event["delivery_id"]]

    applied = wait_for(lambda: fuzzed.client.get(dispatched["status_url"]).json(), what="applied or rejected")
    assert (applied["status"], applied["command"], applied["session_id"]) == ("applied", "store_memory", session_id)
    memories = fuzzed.client.get(f"/v1/sessions/{session_id}/memories").json()["items"]
    assert [(memory["key"], memory["content"]) for memory in memories] == [("k", "from GitHub")]
    told = [(item["event"], item["source"]) for item in fuzzed.journal(session_id)]
    assert told == [("create_session", "signing"), ("store_memory", "github")]


def send(sender: httpx.Client, body: Payload, id: str, *, path: str = "") -> httpx.Response:
    """Post as a sender of Standard Webhooks."""
    content = msgspec.json.encode(body)
    now = datetime.now(UTC)
    headers = {
        "webhook-id": id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(WEBHOOK_SECRET).sign(id, now, content.decode()),
    }
    return sender.post(f"/v1/webhook{path}", content=content, headers=headers, timeout=60)


def send_github(sender: httpx.Client, body: Payload, *, event: str) -> Payload:
    """Post as GitHub. The relay must accept it."""
    content = msgspec.json.encode(body)
    signature = hmac.digest(GITHUB_SECRET.encode(), content, "sha256").hex()
    headers = {
        "Content-Type": "application/json",
        "X-Hub-Signature-256": f"sha256={signature}",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": new_id("github"),
    }
    answer = sender.post("/v1/webhook", content=content, headers=headers)
    assert answer.status_code == 202, answer.text
    taken: Payload = answer.json()
    return taken

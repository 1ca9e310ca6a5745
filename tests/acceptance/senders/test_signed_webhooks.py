"""Signed webhooks with the real worker: those of GitHub and others, and the deliveries that can be read afterwards."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
from standardwebhooks import Webhook

from local.servers.embedded import EmbeddedServer
from tests.support.processes.stack import Payload, envelope, new_stack, wait_for

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
GITHUB_SECRET = "of-github"


def test_signed_commands_take_effect_and_other_events_are_recorded_as_ignored(
    postgres: EmbeddedServer, folder: Path
) -> None:
    with new_stack(postgres, folder, WEBHOOK_SECRETS=f"walker={SECRET}", GITHUB_WEBHOOK_SECRET=GITHUB_SECRET) as stack:
        with httpx.Client(base_url=stack.url) as sender:
            created = send(sender, envelope("create_session", "walk", title="Walk"), "msg_1", path="?wait=30")
            assert created.json()["data"] == {"session_id": "walk", "created": True}
            event = send(sender, {"type": "user.created", "data": {"name": "the-payload"}}, "msg_2").json()
            said = envelope("store_memory", "walk", key="k", content="from GitHub")
            dispatched = send_github(sender, {"action": "note", "client_payload": said}, event="repository_dispatch")
            pushed = send_github(sender, {"ref": "refs/heads/main"}, event="push")
            again = send_github(sender, {"ref": "refs/heads/main"}, event="push", id="another")
        assert again == pushed | {"duplicate": True}
        stack.wait_until_drained()

        for receipt, source in ((event, "walker"), (pushed, "github")):
            kept = stack.client.get(receipt["status_url"]).json()
            assert (kept["status"], kept["source"], kept["reason"]) == ("ignored", source, receipt["reason"])
            assert "the-payload" not in msgspec.json.encode(kept).decode()
        listed = stack.client.get("/v1/deliveries", params={"status": "ignored"}).json()["items"]
        assert [item["delivery_id"] for item in listed] == [pushed["delivery_id"], event["delivery_id"]]

        applied = wait_for(lambda: stack.client.get(dispatched["status_url"]).json(), what="applied or rejected")
        assert (applied["status"], applied["command"], applied["session_id"]) == ("applied", "store_memory", "walk")
        memories = stack.client.get("/v1/sessions/walk/memories").json()["items"]
        assert [(memory["key"], memory["content"]) for memory in memories] == [("k", "from GitHub")]
        told = [(item["event"], item["source"]) for item in stack.journal("walk")]
        assert told == [("create_session", "walker"), ("store_memory", "github")]


def send(sender: httpx.Client, body: Payload, id: str, *, path: str = "") -> httpx.Response:
    """Post as a sender of Standard Webhooks."""
    content = msgspec.json.encode(body)
    now = datetime.now(UTC)
    headers = {
        "webhook-id": id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(SECRET).sign(id, now, content.decode()),
    }
    return sender.post(f"/v1/webhook{path}", content=content, headers=headers, timeout=60)


def send_github(sender: httpx.Client, body: Payload, *, event: str, id: str = "72d3162e") -> Payload:
    """Post as GitHub. The relay must accept it."""
    content = msgspec.json.encode(body)
    signature = hmac.digest(GITHUB_SECRET.encode(), content, "sha256").hex()
    headers = {"X-Hub-Signature-256": f"sha256={signature}", "X-GitHub-Event": event, "X-GitHub-Delivery": id}
    answer = sender.post("/v1/webhook", content=content, headers={**headers, "Content-Type": "application/json"})
    assert answer.status_code == 202, answer.text
    taken: Payload = answer.json()
    return taken

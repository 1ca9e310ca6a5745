"""The output of `status` and `doctor` for a healthy relay and its servers, and for each fault."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from redis import Redis

from models.queue.inbox import SHARDS, inbox_key
from models.queue.job_queue import SWEEPER_KEY
from models.tables import SCHEMA_REVISION
from tests.support.processes.command_line import CommandLine, Done
from tests.support.processes.stack import new_id, wait_for
from tests.support.project import API_KEY
from tests.support.servers import execute, migrate
from tests.support.torture.rig import Rig, new_rig

MAX_BACKLOG = 20
WORKERS = 3


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """Servers and processes without faults."""
    with new_rig(postgres_settings={}, MAX_BACKLOG=str(MAX_BACKLOG)) as rig:
        rig.stack.send("create_session", "walk", title="Walk")
        yield rig


@pytest.fixture(scope="module")
def cli(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """session-cli that knows only the relay."""
    return CommandLine(tmp_path_factory.mktemp("doctor"), RELAY_URL=rig.stack.url, API_KEY=API_KEY)


@pytest.fixture(scope="module")
def direct(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """session-cli that knows only the servers."""
    return CommandLine(
        tmp_path_factory.mktemp("direct"), DATABASE_URL=rig.postgres.url, REDIS_URL=rig.valkey.url, MAX_BACKLOG="20"
    )


def troubles(done: Done) -> set[str]:
    return {check for check, found in done.findings.items() if found["state"] == "trouble"}


def find(cli: CommandLine, check: str) -> dict[str, str]:
    """Return the result of a check once it reports trouble. Fails if it has no remedy."""

    def look() -> dict[str, str]:
        found = cli.run("doctor", code=1).findings.get(check, {})
        return found if found.get("state") == "trouble" else {}

    found = wait_for(look, what=f"trouble in {check}")
    assert found["remedy"]
    return found


def settle(cli: CommandLine) -> None:
    """Wait until no check reports trouble, and those workers are gone that a test before has stopped."""
    wait_for(lambda: _is_settled(cli.run("doctor")), seconds=60, what="no troubles left")


def _is_settled(done: Done) -> bool:
    return not troubles(done) and done.findings["workers"]["detail"].startswith(f"{WORKERS} workers")


def wait_for_sweeper(direct: CommandLine) -> None:
    """Wait until a running sweeper leads: one that an earlier test stopped leaves its key behind, which expires."""
    with Redis.from_url(direct.environment["REDIS_URL"]) as redis:
        redis.delete(SWEEPER_KEY)
        wait_for(lambda: redis.exists(SWEEPER_KEY), what="a sweeper leading")


@contextmanager
def paused(server: Any) -> Iterator[None]:
    """Suspend a server within the block."""
    server.pause()
    try:
        yield
    finally:
        server.restart()


class TestDoctor:
    def test_a_healthy_stack_has_no_trouble(self, cli: CommandLine, direct: CommandLine) -> None:
        wait_for_sweeper(direct)
        settle(cli)
        done = cli.launch("doctor")
        found = done.findings
        assert {row["state"] for row in found.values()} == {"ok"}
        assert {row["remedy"] for row in found.values()} == {""}
        assert {
            *("relay", "key", "encryption", "clock", "version", "webhooks", "redis", "redis durability"),
            *(
                "redis memory",
                "postgres",
                "schema",
                "postgres durability",
                "workers",
                "backlog",
                "dead letters",
                "search",
            ),
        } == found.keys()
        assert "3 workers" in found["workers"]["detail"]
        assert done.err == "No problems, 0 warnings.\n"
        shown = cli.shown("doctor")
        assert shown.count("✓") == len(found)
        assert "✗" not in shown

    def test_redis_down_is_reported_with_its_remedy(self, cli: CommandLine, direct: CommandLine, rig: Rig) -> None:
        with paused(rig.valkey):
            assert "REDIS_URL" in find(cli, "redis")["remedy"]
            assert "webhooks" in troubles(cli.run("doctor", code=1))
            assert "Start Redis" in find(direct, "redis")["remedy"]
        settle(cli)

    def test_postgres_down_is_reported_with_its_remedy(self, cli: CommandLine, direct: CommandLine, rig: Rig) -> None:
        with paused(rig.postgres):
            found = find(cli, "postgres")
            assert "Webhooks are accepted and queued" in found["detail"]
            assert "DATABASE_URL" in found["remedy"]
            assert cli.run("doctor", code=1).findings["webhooks"]["state"] == "ok"
            assert "Start Postgres" in find(direct, "postgres")["remedy"]
        settle(cli)

    def test_an_old_schema_is_reported_and_its_remedy_works(
        self, cli: CommandLine, direct: CommandLine, rig: Rig
    ) -> None:
        rig.stack.stop("worker")
        migrate(rig.postgres.url, "downgrade", "-1")
        found = find(cli, "schema")
        assert f"{SCHEMA_REVISION} is required" in found["detail"]
        assert "session-cli db upgrade" in found["remedy"]
        assert find(direct, "schema")["remedy"] == found["remedy"]
        assert direct.run("db", "check", "--json", "state", code=1).json == {"state": "behind"}
        direct.run("db", "upgrade")
        assert direct.run("db", "check", "--json", "state").json == {"state": "current"}
        rig.stack.start("worker")
        settle(cli)

    def test_a_newer_schema_is_reported_everywhere(self, cli: CommandLine, direct: CommandLine, rig: Rig) -> None:
        execute(rig.postgres.url, "UPDATE alembic_version SET version_num = '9999'")
        try:
            found = find(cli, "schema")
            assert found["detail"] == f"Revision 9999 is newer than this program's {SCHEMA_REVISION}."
            assert found["remedy"] == "Update the app, the workers and session-cli."
            assert find(direct, "schema") == found
            assert direct.run("db", "check", "--json", "state", code=1).json == {"state": "ahead"}
            refused = direct.run("db", "upgrade", code=1)
            assert "A newer version has migrated the database. Update this program" in refused.err
            ready = rig.stack.client.get("/readyz")
            told = f"The database has schema 9999, but this program needs schema {SCHEMA_REVISION}. Update this program"
            assert (ready.status_code, ready.json()["postgres"]) == (200, "ok")
            assert ready.json()["schema"].startswith(told)
            rig.stack.client.get("/readyz")
            assert rig.stack.log("api").count(told) == 1
            # The version before a migration goes on with its tables.
            rig.stack.send("store_memory", "walk", content="while the schema is newer")
        finally:
            execute(rig.postgres.url, f"UPDATE alembic_version SET version_num = '{SCHEMA_REVISION}'")
        assert "schema" not in rig.stack.client.get("/readyz").json()
        settle(cli)

    def test_weaker_syncing_is_reported_with_its_remedy(self, cli: CommandLine, direct: CommandLine, rig: Rig) -> None:
        rig.stack.redis.config_set("appendfsync", "everysec")
        try:
            for who in (cli, direct):
                found = find(who, "redis durability")
                assert "appendfsync everysec" in found["detail"]
                assert "appendfsync always" in found["remedy"]
        finally:
            rig.stack.redis.config_set("appendfsync", "always")
        settle(cli)

    def test_a_full_backlog_is_reported_with_its_remedy(self, cli: CommandLine, direct: CommandLine, rig: Rig) -> None:
        made = rig.stack.client.post("/v1/keys", json={"name": new_id("second"), "scopes": ["write"]}).json()
        rig.stack.stop("worker")
        fill_backlog(rig, API_KEY, made["key"])
        found = find(cli, "backlog")
        assert f"{MAX_BACKLOG} commands of {MAX_BACKLOG}" in found["detail"]
        assert "MAX_BACKLOG" in found["remedy"]
        assert "python -m worker" in find(cli, "workers")["remedy"]
        assert "MAX_BACKLOG" in find(direct, "backlog")["remedy"]
        rig.stack.start("worker")
        rig.stack.wait_until_drained()
        settle(cli)

    def test_an_unreachable_relay_is_reported_and_its_servers_are_checked(self, rig: Rig, direct: CommandLine) -> None:
        nowhere = {"RELAY_URL": "http://127.0.0.1:9", "API_KEY": "x"}
        wait_for_sweeper(direct)
        done = direct.run("doctor", code=1, environment=nowhere)
        assert troubles(done) == {"relay"}
        assert done.findings["schema"]["state"] == "ok"
        assert done.err == "1 problem, 0 warnings.\n"

    def test_servers_are_checked_without_a_relay(self, direct: CommandLine) -> None:
        wait_for_sweeper(direct)
        found = direct.run("doctor").findings
        assert found.pop("relay")["state"] == "warning"
        assert {"redis durability", "schema", "workers", "backlog"} <= found.keys()
        assert {row["state"] for row in found.values()} == {"ok"}

    def test_a_wrong_or_limited_key_is_reported(self, cli: CommandLine, rig: Rig) -> None:
        wrong = cli.run("doctor", code=1, environment={"API_KEY": "wrong"})
        assert troubles(wrong) == {"key"}
        narrow = {"name": new_id("narrow"), "scopes": ["read"], "sessions": "walk"}
        key = rig.stack.client.post("/v1/keys", json=narrow).json()["key"]
        wait_for(lambda: cli.run("list", "--json", environment={"API_KEY": key}), what="key accepted")
        found = cli.run("doctor", environment={"API_KEY": key}).findings
        assert found["key"]["state"] == "warning"
        assert "walk" in found["key"]["detail"]


def fill_backlog(rig: Rig, *keys: str) -> None:
    """Send until as many commands wait as may. A sample of the relay counts what was applied just before as waiting."""

    def is_full() -> bool:
        for key in keys:
            body = {"command": "store_memory", "session_id": "walk", "data": {"key": "k", "content": new_id()}}
            rig.stack.client.post("/v1/webhook", json=body, headers={"X-API-Key": key})
        return sum(rig.stack.redis.xlen(inbox_key(shard)) for shard in range(SHARDS)) == MAX_BACKLOG

    wait_for(is_full, what="limit reached")


def wait_until_taken(cli: CommandLine) -> None:
    """Wait until the relay accepts webhooks: it looks at the backlog once a second."""
    wait_for(lambda: cli.run("status", "--json").json["webhooks"]["taken"], what="webhooks accepted")


class TestStatus:
    def test_all_parts_are_shown_in_each_form(self, cli: CommandLine, direct: CommandLine, rig: Rig) -> None:
        wait_for_sweeper(direct)
        settle(cli)
        rig.stack.wait_until_drained()
        states = {row["part"]: row["state"] for row in cli.run("status").rows}
        assert set(states.values()) == {"ok"}
        assert [part for part in states if part.startswith("shard")] == []  # Nothing waits in any.
        told = cli.run("status", "--json").json
        assert (told["webhooks"], told["workers"]["alive"]) == ({"taken": True, "reason": None}, 3)
        assert told["postgres"]["revision"] == told["postgres"]["needed_revision"]
        assert told["key"]["scopes"] == ["read", "write", "delegate", "agent", "admin"]
        assert len(told["inbox"]["shards"]) == 16
        assert cli.run("status", "--json", "workers.alive").json == {"workers.alive": 3}

    def test_the_backlog_is_shown_by_shard_while_postgres_is_down(self, cli: CommandLine, rig: Rig) -> None:
        wait_until_taken(cli)
        with paused(rig.postgres):
            for number in range(MAX_BACKLOG // 2 - 1):
                rig.stack.post("store_memory", f"walk-{number % 3}", key="k", content=new_id())
            told = cli.run("status", "--json", code=5).json
            assert told["postgres"]["state"] == "unavailable"
            assert told["webhooks"]["taken"] is True
            assert told["inbox"]["waiting"] == MAX_BACKLOG // 2 - 1
            waiting = {shard["shard"]: shard for shard in told["inbox"]["shards"] if shard["waiting"]}
            assert all(shard["oldest_seconds"] >= 0 for shard in waiting.values())
            assert max(shard["oldest_seconds"] for shard in waiting.values()) == told["inbox"]["oldest_seconds"]
            shown = cli.shown("status", code=5, columns=60)
            assert shown.count("█") >= 24
            assert max(map(len, shown.splitlines())) < 120
        settle(cli)

    def test_a_key_for_some_sessions_sees_no_numbers(self, cli: CommandLine, rig: Rig) -> None:
        settle(cli)
        narrow = {"name": new_id("narrow"), "scopes": ["admin"], "sessions": "walk*"}
        key = rig.stack.client.post("/v1/keys", json=narrow).json()["key"]

        def answer() -> int:
            return rig.stack.client.get("/v1/status", headers={"X-API-Key": key}).status_code

        # 503 while the relay cannot check keys, as after a test that emptied Redis.
        wait_for(lambda: answer() not in (401, 503), what="key accepted")
        assert answer() == 403
        states = {row["part"]: row["state"] for row in cli.run("status", environment={"API_KEY": key}).rows}
        assert states == {"relay": "ok", "redis": "ok", "postgres": "ok", "webhooks": "ok", "more": "hidden"}

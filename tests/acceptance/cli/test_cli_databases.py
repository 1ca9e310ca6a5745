"""Backups made and restored by session-cli: complete, in order, and never partial."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
import pytest

from local.data_dir import Lock, make_data_dir
from local.operator.migrations import read_revision
from local.operator.postgres_tools import TargetDatabase, ToolError, tools_for
from models.tables import SCHEMA_REVISION
from tests.support.processes.command_line import PROGRAM, CommandLine
from tests.support.processes.stack import Stack, new_id, wait_for
from tests.support.project import API_KEY
from tests.support.servers import execute, migrate, new_folder, start_migrated_postgres
from tests.support.stores.embedding import embed_all, new_embedding
from tests.support.torture.rig import Rig, new_rig

GATE = 7_305_099
"""The advisory lock that blocks a restore."""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """Servers and processes of this module's own, as few as possible, since its tests restart them often."""
    with new_rig(workers=1) as rig:
        yield rig


@pytest.fixture
def stack(rig: Rig) -> Stack:
    """The rig's processes, which run before each test."""
    rig.stack.start()
    return rig.stack


@pytest.fixture
def cli(rig: Rig, tmp_path: Path) -> CommandLine:
    """session-cli that knows the relay and its servers."""
    return CommandLine(
        tmp_path,
        RELAY_URL=rig.stack.url,
        API_KEY=API_KEY,
        DATABASE_URL=rig.postgres.url,
        REDIS_URL=rig.valkey.url,
        DATA_DIR=str(tmp_path / "none"),
    )


def fill(stack: Stack, session_id: str, numbers: range) -> None:
    """Store one item of each kind."""
    stack.send("create_session", session_id, title='"Quotes", \\N and 火', context="A tab\t, a line\n")
    for number in numbers:
        stack.send("conversation_chunk", session_id, chunk_id=f"c{number}", content=f"Ana: {number}\n\\.\nBen: no")
        stack.send("store_memory", session_id, key="count", content={"n": number, "text": "COPY x (y) FROM stdin;"})
    stack.send("add_artifact", session_id, artifact_id=f"a{numbers.start}", name="Report", content="# Report\n")


def everything(cli: CommandLine) -> str:
    """Export all sessions."""
    return cli.run("export", "--all").out


def embedded(database_url: str) -> int:
    """Make the vectors of all texts, and return the number of passages that have one."""
    with new_embedding(database_url) as embedding:
        embed_all(embedding)
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(DISTINCT passage_id) FROM passage_vectors")
        return int((cursor.fetchone() or [0])[0])


class TestPostgres:
    def test_a_restored_backup_has_the_same_sessions_and_known_deliveries(self, cli: CommandLine, stack: Stack) -> None:
        kept, gone = new_id("kept"), new_id("gone")
        fill(stack, kept, range(3))
        fill(stack, gone, range(2))
        before = everything(cli)
        [made] = cli.launch("db", "backup", "all.dump").rows
        file = cli.folder / "all.dump"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert int(made["sessions"]) == len(before.splitlines())

        fill(stack, kept, range(3, 6))
        stack.send("delete_session", gone, confirm=gone)
        fill(stack, new_id("new"), range(1))
        later = stack.journal(kept)[-1]["cursor"]
        assert everything(cli) != before

        refused = cli.run("db", "restore", "all.dump", "--yes", code=1)
        assert "session-relay api" in refused.err
        assert "session-relay worker" in refused.err
        changed = everything(cli)
        stack.stop("worker")
        waiting = stack.post("store_memory", kept, key="late", content=1)["delivery_id"]
        stack.stop("api")
        asked = cli.run("db", "restore", "all.dump", code=2)
        assert f"{len(changed.splitlines())} sessions" in asked.err
        stack.redis.set("sr:keys:revoked:kept", "1")
        cli.launch("db", "restore", "all.dump", "--yes")
        assert stack.redis.get("sr:keys:revoked:kept") == b"1"
        assert not [*stack.redis.scan_iter("sr:seen:*"), *stack.redis.scan_iter("sr:outcome:*")]
        stack.start("api")
        assert everything(cli) == before
        stack.start("worker")
        stack.wait_until_drained()
        wait_for(lambda: stack.client.get(f"/v1/deliveries/{waiting}").json()["status"] == "applied", what="applied")
        news = stack.client.get(f"/v1/sessions/{kept}/events", params={"after": later}).json()["items"]
        assert [event["delivery_id"] for event in news] == [waiting]

    def test_a_backup_has_no_vectors_which_are_made_anew_after_a_restore(
        self, cli: CommandLine, stack: Stack, rig: Rig
    ) -> None:
        fill(stack, new_id("vectors"), range(2))
        before_backup = embedded(rig.postgres.url)
        assert before_backup > 0
        before = everything(cli)
        cli.run("db", "backup", "all.dump")
        assert b"halfvec" not in (cli.folder / "all.dump").read_bytes()
        stack.stop()
        cli.run("db", "restore", "all.dump", "--yes")
        assert embedded(rig.postgres.url) == before_backup
        stack.start("api")
        assert everything(cli) == before

    def test_a_forced_restore_of_a_running_stack_is_complete_and_accepts_repeats(
        self, cli: CommandLine, stack: Stack
    ) -> None:
        session_id = new_id("forced")
        fill(stack, session_id, range(2))
        cli.run("db", "backup", "all.dump")
        before = everything(cli)
        delivery = new_id("delivery")
        for _ in range(2):
            stack.post("store_memory", session_id, delivery_id=delivery, key="late", content=1)
            wait_for(lambda: stack.client.get(f"/v1/deliveries/{delivery}").json()["status"] == "applied")
            cli.run("db", "restore", "all.dump", "--yes", "--force")
            assert everything(cli) == before

    def test_a_restore_that_is_declined_damaged_foreign_or_killed_changes_nothing(
        self, cli: CommandLine, stack: Stack, rig: Rig
    ) -> None:
        session_id = new_id("old")
        fill(stack, session_id, range(2))
        cli.run("db", "backup", "old.dump")
        old = stack.journal(session_id)
        fill(stack, session_id, range(2, 4))
        before = everything(cli)
        stack.stop()

        terminal = cli.terminal("db", "restore", "old.dump", columns=200)
        assert "(last active " in terminal.wait_for("[y/N]")
        terminal.type("n\n")
        code, text = terminal.end()
        assert (code, "Nothing was changed." in text) == (1, True)

        whole = (cli.folder / "old.dump").read_bytes()
        for damaged in (whole[: len(whole) // 2], whole[:-10], b"", b"nonsense" * 1_000):
            (cli.folder / "damaged.dump").write_bytes(damaged)
            assert "Error:" in cli.run("db", "restore", "damaged.dump", "--yes", code=1).err

        with waiting_gate(rig) as is_reached:
            restoring = subprocess.Popen(
                [PROGRAM, "db", "restore", "old.dump", "--yes"], cwd=cli.folder, env=cli.environment
            )
            wait_for(is_reached, what="restore blocked")
            os.kill(restoring.pid, signal.SIGKILL)
            restoring.wait()

        # Foreign tables are dropped only on request.
        execute(rig.postgres.url, "CREATE TABLE recipes (name text)")
        assert "recipes" in cli.run("db", "restore", "old.dump", "--yes", code=1).err
        stack.start("api")
        assert everything(cli) == before
        stack.stop()
        cli.run("db", "restore", "old.dump", "--yes", "--force")
        assert cli.run("db", "check", "--json", "state").json == {"state": "current"}
        stack.start("api")
        assert stack.journal(session_id) == old

    def test_a_failed_backup_keeps_the_previous_one(self, cli: CommandLine, rig: Rig) -> None:
        cli.run("db", "backup", "all.dump")
        before = (cli.folder / "all.dump").read_bytes()
        rig.postgres.pause()
        try:
            assert "Cannot connect to the database" in cli.run("db", "backup", "all.dump", code=5).err
        finally:
            rig.postgres.restart()
        assert (cli.folder / "all.dump").read_bytes() == before
        assert [path.name for path in cli.folder.iterdir() if "dump" in path.name] == ["all.dump"]

    def test_tools_older_than_the_server_are_refused_with_the_required_version(self) -> None:
        with pytest.raises(ToolError, match=r"Postgres 99 requires .* 99 or newer"):
            tools_for(990_001)

    def test_no_command_line_contains_a_password(self) -> None:
        database = TargetDatabase("postgres://user:swordfish%21@db.example:5433/relay?sslmode=require")
        assert "swordfish" not in database.dsn + repr(database)
        assert database.environment("backup")["PGPASSWORD"] == "swordfish!"
        assert (database.name, database.host) == ("relay", "db.example")


class TestLocalStack:
    def test_the_servers_of_a_stopped_stack_are_started_and_an_old_backup_is_migrated(self, tmp_path: Path) -> None:
        data_dir = make_data_dir(new_folder("stack"))
        cli = CommandLine(tmp_path, DATA_DIR=str(data_dir))
        assert "DATABASE_URL" in cli.run("db", "check", code=2).err
        postgres = start_migrated_postgres(data_dir)
        migrate(postgres.url, "downgrade", "-1")
        add_session(postgres.url, "first")
        postgres.stop()
        assert cli.run("db", "backup", "all.dump").rows[0]["sessions"] == "1"
        postgres.restart()
        add_session(postgres.url, "second")
        postgres.stop()
        assert cli.run("db", "restore", "all.dump", "--yes").rows[0]["sessions"] == "1"
        assert cli.run("db", "backup", "again.dump").rows[0]["sessions"] == "1"
        postgres.restart()
        assert read_revision(TargetDatabase(postgres.url)) == SCHEMA_REVISION
        postgres.stop()
        assert not (data_dir / "postgres" / "data" / "postmaster.pid").exists()

    def test_a_running_stack_is_backed_up_but_not_overwritten(self, cli: CommandLine, rig: Rig) -> None:
        data_dir = make_data_dir(cli.folder / "data")
        lock = Lock(data_dir / "stack.lock", subject="It")
        running = {name: value for name, value in cli.environment.items() if name not in ("DATABASE_URL", "REDIS_URL")}
        description = {"pid": os.getpid(), "database_url": rig.postgres.url, "redis_url": rig.valkey.url}
        (data_dir / "stack.json").write_text(json.dumps(description))
        cli.environment = {**running, "DATA_DIR": str(data_dir)}
        try:
            cli.run("db", "backup", "all.dump")
            assert "is running" in cli.run("db", "restore", "all.dump", "--yes", code=1).err
        finally:
            lock.release()


def add_session(url: str, session_id: str) -> None:
    execute(
        url,
        "INSERT INTO sessions (session_id, title, participants, context, status, created_by, created_at,"
        f" last_activity_at) VALUES ('{session_id}', 't', '{{}}', '', 'active', 'x', now(), now())",
    )


@contextmanager
def waiting_gate(rig: Rig) -> Iterator[Callable[[], bool]]:
    """Block CREATE INDEX, which a restore runs once all rows are in their tables. Yields a function that returns
    whether anybody is blocked. In the end waits until Postgres has noticed that the restore was killed."""
    connection = psycopg2.connect(rig.postgres.url)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(
            f"""
            CREATE SCHEMA gate;
            CREATE FUNCTION gate.wait() RETURNS event_trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_advisory_xact_lock({GATE}); END $$;
            CREATE EVENT TRIGGER gate ON ddl_command_start WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION gate.wait();
            SELECT pg_advisory_lock({GATE})
            """
        )

        def is_reached() -> bool:
            cursor.execute(f"SELECT count(*) FROM pg_locks WHERE objid = {GATE} AND NOT granted")
            return cursor.fetchone() != (0,)

        def is_over() -> bool:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'session-relay restore'")
            return cursor.fetchone() == (0,)

        try:
            yield is_reached
        finally:
            cursor.execute(f"SELECT pg_advisory_unlock({GATE}); DROP EVENT TRIGGER gate; DROP SCHEMA gate CASCADE")
            wait_for(is_over, what="killed restore over")
    connection.close()


class TestFiles:
    @pytest.fixture
    def files(self, tmp_path: Path) -> CommandLine:
        """session-cli on a JSON store with some sessions."""
        cli = CommandLine(tmp_path, STORAGE_BACKEND="json", DATA_DIR=str(tmp_path / "data"))
        for number in range(5):
            cli.run("create", f"walk-{number}")
        return cli

    def test_a_restored_archive_has_the_same_sessions(self, files: CommandLine) -> None:
        before = everything(files)
        assert files.launch("db", "backup", "all.tgz").rows[0]["sessions"] == "5"
        assert stat.S_IMODE((files.folder / "all.tgz").stat().st_mode) == 0o600
        files.run("create", "later")
        files.run("pause", "walk-1")
        files.run("delete", "walk-2", "--yes")
        assert "5 sessions" in files.run("db", "restore", "all.tgz", code=2).err
        files.run("db", "restore", "all.tgz", "--yes")
        assert everything(files) == before
        files.run("pause", "walk-1")
        assert [path.name for path in (files.folder / "data" / "json-store").glob(".*")] == []

    def test_a_restore_killed_midway_changes_nothing(self, files: CommandLine) -> None:
        store = files.folder / "data" / "json-store"
        files.run("db", "backup", "all.tgz")
        files.run("create", "later")
        before = everything(files)
        lock = Lock(store / "locks" / "80.lock", subject="It")
        restoring = subprocess.Popen(
            [PROGRAM, "db", "restore", "all.tgz", "--yes"], cwd=files.folder, env=files.environment
        )
        wait_for(lambda: len([*store.glob(".passing-*/*")]) == 5, what="restore half done")
        os.kill(restoring.pid, signal.SIGKILL)
        restoring.wait()
        lock.release()
        assert everything(files) == before
        files.run("db", "restore", "all.tgz", "--yes")
        assert "later" not in everything(files)
        assert not [*store.glob(".passing-*")]

    def test_a_damaged_archive_is_detected_before_any_change(self, files: CommandLine) -> None:
        before = everything(files)
        files.run("db", "backup", "all.tgz")
        whole = (files.folder / "all.tgz").read_bytes()
        for damaged in (whole[: len(whole) // 2], whole[:-9], b"", b"nonsense" * 1_000):
            (files.folder / "damaged.tgz").write_bytes(damaged)
            assert "Error:" in files.run("db", "restore", "damaged.tgz", "--yes", code=1).err
        assert everything(files) == before

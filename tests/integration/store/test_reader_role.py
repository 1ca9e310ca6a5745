"""The role for readers: it sees what it should, and has no other access."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2 import errors

from local.operator.backups import make_backup
from local.operator.postgres_tools import TargetDatabase, tools_for
from local.operator.reader_privileges import UNSEEN
from local.operator.reader_role import CONNECTIONS, ROLE, ReaderRole, drop_reader, make_reader
from local.operator.restore import restore
from local.servers.embedded import EmbeddedServer, start_postgres
from models.errors import Conflict, Forbidden, Unavailable
from models.tables import METADATA
from tests.support.servers import NO_SYNC, TEMPLATE, execute, migrate, new_folder, start_migrated_postgres

CLOSED = {"api_keys", "deliveries", "passages_to_embed"}
GRANT = "GRANT ALL ON sessions TO PUBLIC"
"""A statement that has no effect, for which Postgres only warns."""
TRIES = [
    "INSERT INTO agents (name, type, max_concurrent, capabilities, registered_at) VALUES ('x', 'x', 1, '{}', now())",
    "UPDATE sessions SET title = 'x'",
    "DELETE FROM events",
    "TRUNCATE sessions CASCADE",
    "WITH gone AS (DELETE FROM memories RETURNING *) SELECT * FROM gone",
    "CREATE TABLE mine (a int)",
    "CREATE TEMPORARY TABLE mine (a int)",
    "SELECT 1 AS a INTO TEMPORARY mine",
    "CREATE SCHEMA mine",
    "CREATE VIEW mine AS SELECT 1",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE EXTENSION vector",
    "CREATE ROLE mine",
    "ALTER TABLE sessions ADD COLUMN mine int",
    "ALTER TABLE sessions OWNER TO CURRENT_USER",
    GRANT,
    "DROP TABLE sessions",
    "DO $$ BEGIN DELETE FROM sessions; END $$",
    "DO $$ BEGIN EXECUTE 'CREATE TABLE mine (a int)'; END $$",
    "SELECT query_to_xml('DELETE FROM sessions RETURNING 1', true, true, '')",
    "SELECT nextval('events_event_id_seq')",
    "SELECT setval('events_event_id_seq', 1)",
    "SELECT * FROM sessions FOR UPDATE",
    "LOCK TABLE sessions IN EXCLUSIVE MODE",
    "SELECT lo_create(0)",
    "SELECT lo_creat(-1)",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT lo_import('/etc/hostname')",
    "SELECT pg_logical_emit_message(false, 'x', 'x')",
    "COPY sessions FROM '/etc/hostname'",
    "COPY (SELECT 1) TO '/tmp/mine'",
    "COPY (SELECT 1) TO PROGRAM 'true'",
    "SELECT pg_read_file('/etc/hostname')",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'",
    "SET ROLE postgres",
    "SET SESSION AUTHORIZATION postgres",
    "SET temp_file_limit = -1",
    "ALTER SYSTEM SET fsync = off",
    "ALTER ROLE CURRENT_USER SUPERUSER",
    "SELECT * FROM api_keys",
    "SELECT count(*) FROM deliveries",
    "SELECT claim_token FROM tasks",
    "SELECT command FROM agents",
    "SELECT * FROM tasks",
    "SELECT rolpassword FROM pg_authid",
]
TRUSTED = ("postgres", "tenant", "nobody")
WAYS = {
    "alone": "{}",
    "after an end of the transaction": "COMMIT; {}",
    "after the setting is turned off": "SET default_transaction_read_only = off; COMMIT; BEGIN; {}",
    "in a transaction that may write": "ROLLBACK; BEGIN READ WRITE; {}; COMMIT",
}


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """A Postgres of its own, since roles belong to a whole server; it requires passwords of readers."""
    server = start_migrated_postgres(new_folder("postgres"))
    [(rules,)] = rows(server.url, "SHOW hba_file")
    Path(rules).write_text(f"local all {','.join(TRUSTED)} trust\nlocal all all scram-sha-256\n")
    rows(server.url, "SELECT pg_reload_conf()")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def owner(server: EmbeddedServer) -> TargetDatabase:
    """The migrated database as its owner, with a session and a task."""
    execute(
        server.url,
        "INSERT INTO sessions (session_id, title, participants, context, status, created_by, created_at,"
        " last_activity_at) VALUES ('walk', 'Walk', '{Anna}', '', 'active', 'x', now(), now());"
        " INSERT INTO tasks (session_id, task_id, task_type, description, description_hash, priority, input_data,"
        " depends_on, max_attempts, attempt, status, questions, claim_token, created_by, created_at, updated_at)"
        " VALUES ('walk', 't', 'x', 'Compare prices', 'x', 0, '{}', '{}', 1, 0, 'pending', '[]', 'hash', 'x',"
        " now(), now())",
    )
    return TargetDatabase(server.url)


@pytest.fixture
def reader(owner: TargetDatabase) -> ReaderRole:
    """The newly created role."""
    return make_reader(owner)


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def state(url: str) -> list[tuple[Any, ...]]:
    """Return everything that a reader could have changed."""
    return rows(
        url,
        "SELECT 'class', oid::regclass::text, relacl::text, relowner FROM pg_class WHERE relnamespace = 2200"
        " OR relnamespace >= 16384 AND relname !~ '^pg_toast'"
        " UNION ALL SELECT 'function', oid::regprocedure::text, proacl::text, proowner FROM pg_proc WHERE oid >= 16384"
        " UNION ALL SELECT 'schema', nspname, nspacl::text, nspowner FROM pg_namespace WHERE nspname !~ '^pg_t'"
        " UNION ALL SELECT 'role', rolname, rolsuper::text || coalesce(rolpassword, ''), oid FROM pg_authid"
        " UNION ALL SELECT 'large object', oid::text, '', 0 FROM pg_largeobject_metadata"
        " UNION ALL SELECT 'session', session_id, title, 0 FROM sessions"
        " UNION ALL SELECT 'task', task_id, status, 0 FROM tasks"
        " UNION ALL SELECT 'agent', name, type, 0 FROM agents"
        " UNION ALL SELECT 'sequence', 'events', last_value::text, 0 FROM events_event_id_seq ORDER BY 1, 2",
    )


@contextmanager
def another_database(server: EmbeddedServer, name: str, *, template: str = "template1") -> Iterator[str]:
    """Another database on the server, with its URL; without tables, unless another template is named."""
    with TargetDatabase(server.url).connect("tests") as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield server.url.replace("/postgres?", f"/{name}?")
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


class TestReading:
    def test_it_reads_the_tables_for_readers(self, reader: ReaderRole) -> None:
        assert rows(reader.url, "SELECT title, participants FROM sessions") == [("Walk", ["Anna"])]
        assert rows(reader.url, "SELECT description, status FROM tasks") == [("Compare prices", "pending")]
        for table in reader.tables:
            rows(reader.url, f"SELECT count(*) FROM {table}")
        found = "SELECT count(*) FROM passages WHERE words @@ to_tsquery('simple', 'roof')"
        assert rows(reader.url, found) == [(0,)]
        assert reader.remains == []

    def test_each_table_is_open_or_closed_on_purpose(self) -> None:
        assert UNSEEN.keys() | CLOSED == METADATA.tables.keys()
        assert not UNSEEN.keys() & CLOSED

    def test_forbidden_columns_are_hidden_from_it(self, reader: ReaderRole) -> None:
        shown = rows(reader.url, "SELECT table_name, column_name FROM information_schema.columns")
        assert ("tasks", "description") in shown
        assert ("tasks", "claim_token") not in shown
        assert not {table for table, _ in shown} & CLOSED

    def test_it_is_read_only_and_limited_by_default(self, reader: ReaderRole) -> None:
        for name, value in {
            "transaction_read_only": "on",
            "statement_timeout": "30s",
            "temp_file_limit": "1GB",
        }.items():
            assert rows(reader.url, f"SHOW {name}") == [(value,)]
        with pytest.raises(errors.ReadOnlySqlTransaction):
            execute(reader.url, "CREATE TABLE mine (a int)")


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_no_attempt_changes_or_reveals_anything(owner: TargetDatabase, reader: ReaderRole, way: str) -> None:
    before = state(owner.url)
    done = []
    with closing(psycopg2.connect(reader.url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for attempt in TRIES:
            with suppress(psycopg2.Error):
                cursor.execute(way.format(attempt))
                done.append(attempt)
            for statement in ("ROLLBACK", "DISCARD ALL"):  # As if it were a new connection.
                cursor.execute(statement)
    assert set(done) <= {GRANT}
    assert state(owner.url) == before


class TestMaking:
    def test_recreating_the_role_changes_the_password_and_ends_connections(self, owner: TargetDatabase) -> None:
        first = make_reader(owner)
        before = password_of(owner)
        with closing(psycopg2.connect(first.url)) as connection, connection.cursor() as cursor:
            second = make_reader(owner)
            with pytest.raises(psycopg2.OperationalError):
                cursor.execute("SELECT 1")
        with pytest.raises(Unavailable), TargetDatabase(first.url).connect("tests"):
            pass
        assert rows(second.url, "SELECT 1") == [(1,)]
        assert password_of(owner) != before
        assert password_of(owner).startswith("SCRAM-SHA-256$")
        assert second.url.partition("@")[0] not in repr(second)

    def test_recreating_the_role_resets_its_settings_and_privileges(self, owner: TargetDatabase) -> None:
        url = make_reader(owner).url
        execute(url, "COMMIT; BEGIN READ WRITE; ALTER ROLE CURRENT_USER SET default_transaction_read_only = off")
        execute(owner.url, f"GRANT INSERT ON events TO {ROLE}; GRANT SELECT ON api_keys TO {ROLE}")
        execute(owner.url, f"GRANT SELECT (claim_token) ON tasks TO {ROLE}; GRANT CREATE ON SCHEMA public TO {ROLE}")
        url = make_reader(owner).url
        assert rows(url, "SHOW default_transaction_read_only") == [("on",)]
        for statement in ("INSERT INTO events DEFAULT VALUES", "CREATE TABLE mine (a int)"):
            with pytest.raises(errors.InsufficientPrivilege):
                execute(url, f"COMMIT; BEGIN READ WRITE; {statement}")
        for statement in ("SELECT * FROM api_keys", "SELECT claim_token FROM tasks"):
            with pytest.raises(errors.InsufficientPrivilege):
                rows(url, statement)

    def test_default_public_privileges_remain_with_the_owners(self, owner: TargetDatabase) -> None:
        execute(owner.url, "GRANT TEMPORARY ON DATABASE postgres TO PUBLIC; GRANT CREATE ON SCHEMA public TO PUBLIC")
        execute(owner.url, "GRANT EXECUTE ON FUNCTION lo_create(oid) TO PUBLIC")
        url = make_reader(owner).url
        for attempt in ("CREATE TEMPORARY TABLE mine (a int)", "CREATE TABLE mine (a int)", "SELECT lo_create(0)"):
            with pytest.raises(errors.InsufficientPrivilege):
                execute(url, f"COMMIT; BEGIN READ WRITE; {attempt}")
        execute(owner.url, "CREATE TEMPORARY TABLE ours (a int); CREATE TABLE ours_too (a int); DROP TABLE ours_too")

    def test_its_connections_are_limited(self, owner: TargetDatabase) -> None:
        url = make_reader(owner).url
        with ExitStack() as connections:
            for _ in range(CONNECTIONS):
                connections.enter_context(closing(psycopg2.connect(url)))
            with pytest.raises(psycopg2.OperationalError, match="too many connections"):
                psycopg2.connect(url)

    @pytest.mark.parametrize(
        ("grant", "told"),
        [
            ("INSERT ON events TO PUBLIC", "write events"),
            ("UPDATE (title) ON sessions TO PUBLIC", "write sessions"),
            ("SELECT ON api_keys TO PUBLIC", "read api_keys"),
            ("SELECT (claim_token) ON tasks TO PUBLIC", "read tasks.claim_token"),
            ("CREATE ON DATABASE postgres TO PUBLIC", "create schemas"),
        ],
    )
    def test_it_is_not_created_where_public_has_more_privileges(
        self, owner: TargetDatabase, grant: str, told: str
    ) -> None:
        url = make_reader(owner).url
        execute(owner.url, f"GRANT {grant}")
        try:
            with pytest.raises(Conflict, match=told):
                make_reader(owner)
            assert rows(url, "SELECT 1") == [(1,)]  # The state is unchanged.
        finally:
            execute(owner.url, f"REVOKE {grant.replace(' TO ', ' FROM ')}")

    def test_a_new_table_stays_closed_until_it_is_opened_on_purpose(self, owner: TargetDatabase) -> None:
        url = make_reader(owner).url
        execute(owner.url, "CREATE TABLE later (a int); ALTER TABLE sessions ADD COLUMN later int")
        try:
            with pytest.raises(errors.InsufficientPrivilege):
                rows(url, "SELECT * FROM later")
            assert rows(url, "SELECT later FROM sessions") == [(None,)]
            with pytest.raises(errors.InsufficientPrivilege):
                rows(make_reader(owner).url, "SELECT * FROM later")
        finally:
            execute(owner.url, "DROP TABLE later; ALTER TABLE sessions DROP COLUMN later")

    def test_security_definer_functions_are_reported(self, owner: TargetDatabase) -> None:
        execute(owner.url, "CREATE FUNCTION wipe() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'")
        try:
            assert "wipe()" in str(make_reader(owner).remains)
        finally:
            execute(owner.url, "DROP FUNCTION wipe")

    def test_a_foreign_role_of_the_name_is_left_alone(self, owner: TargetDatabase) -> None:
        before = state(owner.url)
        for call in (make_reader, drop_reader):
            with pytest.raises(Conflict, match="not created by this command"):
                call(owner, role="postgres")
        assert state(owner.url) == before

    def test_a_role_with_added_powers_is_refused(self, owner: TargetDatabase) -> None:
        make_reader(owner, role="grown")
        for change, back, told in (
            ("GRANT postgres TO grown", "REVOKE postgres FROM grown", "member of postgres"),
            ("ALTER ROLE grown CREATEROLE", "ALTER ROLE grown NOCREATEROLE", "administrator"),
        ):
            execute(owner.url, change)
            with pytest.raises(Conflict, match=told):
                make_reader(owner, role="grown")
            execute(owner.url, back)
        assert drop_reader(owner, role="grown")

    def test_a_name_is_quoted(self, owner: TargetDatabase) -> None:
        name = 'Odd "name" @/%; DROP TABLE sessions'
        made = make_reader(owner, role=name)
        assert rows(made.url, "SELECT current_user") == [(name,)]
        assert drop_reader(owner, role=name)

    def test_tables_of_another_version_are_reported(self, server: EmbeddedServer) -> None:
        with another_database(server, "bare") as url, pytest.raises(Conflict, match="empty"):
            make_reader(TargetDatabase(url))


class TestDropping:
    def test_a_dropped_role_has_no_access(self, owner: TargetDatabase) -> None:
        made = make_reader(owner, role="gone")
        with closing(psycopg2.connect(made.url)) as connection, connection.cursor() as cursor:
            assert drop_reader(owner, role="gone")
            with pytest.raises(psycopg2.OperationalError):
                cursor.execute("SELECT 1")
        with pytest.raises(Unavailable), TargetDatabase(made.url).connect("tests"):
            pass
        assert not drop_reader(owner, role="gone")

    def test_a_role_used_in_another_database_only_loses_its_login(
        self, server: EmbeddedServer, owner: TargetDatabase
    ) -> None:
        with another_database(server, "second", template=TEMPLATE) as url:
            make_reader(TargetDatabase(url), role="shared")
            made = make_reader(owner, role="shared")
            with pytest.raises(Conflict, match="can no longer log in"):
                drop_reader(owner, role="shared")
            with pytest.raises(Unavailable), TargetDatabase(made.url).connect("tests"):
                pass
            assert drop_reader(TargetDatabase(url), role="shared")
        assert not drop_reader(owner, role="shared")


@pytest.fixture(scope="module")
def tenant(server: EmbeddedServer) -> Iterator[TargetDatabase]:
    """A migrated database whose owner is no superuser."""
    execute(server.url, "CREATE ROLE tenant LOGIN CREATEROLE; CREATE ROLE nobody LOGIN")
    with another_database(server, "tenancy") as url:
        execute(server.url, "ALTER DATABASE tenancy OWNER TO tenant")
        address = url.replace("//postgres@", "//tenant@")
        migrate(address)
        yield TargetDatabase(address)
    execute(server.url, "DROP ROLE IF EXISTS tenant_reader; DROP ROLE tenant, nobody")


class TestWithoutSuperuser:
    """On managed servers, the owner of the database may create roles without being a superuser."""

    def test_an_owner_who_may_create_roles_creates_it_with_a_warning(self, tenant: TargetDatabase) -> None:
        for _ in range(2):
            made = make_reader(tenant, role="tenant_reader")
            assert rows(made.url, "SELECT count(*) FROM sessions") == [(0,)]
            assert "lo_create" in made.remains[0]
        for statement in ("CREATE TEMPORARY TABLE mine (a int)", "CREATE TABLE mine (a int)", "DELETE FROM sessions"):
            with pytest.raises(errors.InsufficientPrivilege):
                execute(made.url, f"COMMIT; BEGIN READ WRITE; {statement}")
        execute(tenant.url, "CREATE TEMPORARY TABLE ours (a int); CREATE TABLE ours_too (a int); DROP TABLE ours_too")
        assert drop_reader(tenant, role="tenant_reader")

    def test_an_owner_who_may_not_create_roles_gets_an_error(self, tenant: TargetDatabase) -> None:
        with pytest.raises(Forbidden, match="Nothing was changed"):
            make_reader(TargetDatabase(tenant.url.replace("//tenant@", "//nobody@")), role="tenant_reader")


def test_a_backup_contains_no_role_and_can_be_restored_without_it(
    server: EmbeddedServer, owner: TargetDatabase, redis_url: str, tmp_path: Path
) -> None:
    make_reader(owner)
    with owner.connect("tests") as connection:
        tools = tools_for(connection.server_version)
    make_backup(owner, tmp_path / "all.dump", advance=lambda: None)
    other = start_postgres(new_folder("postgres"), settings=NO_SYNC)
    try:
        restore(TargetDatabase(other.url), redis_url, tmp_path / "all.dump", tools=tools, advance=lambda: None)
        assert rows(other.url, "SELECT session_id FROM sessions") == [("walk",)]
        assert rows(make_reader(TargetDatabase(other.url)).url, "SELECT session_id FROM sessions") == [("walk",)]
    finally:
        other.stop()


def password_of(owner: TargetDatabase) -> str:
    [(password,)] = rows(owner.url, f"SELECT rolpassword FROM pg_authid WHERE rolname = '{ROLE}'")
    return str(password)

"""A running stack for acceptance tests, with a database and a Redis database of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import Engine

from local.servers.embedded import EmbeddedServer, start_postgres
from models.settings import read_settings
from sessions.postgres.connections import create_engine
from tests.support.clients.agents import Agent, Delegate, delegating
from tests.support.clients.dead_letters import poisoned_session
from tests.support.clients.signing import GITHUB_SECRET, WEBHOOK_SECRET
from tests.support.databases import migrate, new_database
from tests.support.processes.browser import Browser
from tests.support.processes.command_line import CommandLine
from tests.support.processes.pooler import Pooler, start_pgbouncer
from tests.support.processes.stack import Stack, new_id
from tests.support.project import API_KEY
from tests.support.torture.rig import Rig, new_rig


@pytest.fixture(scope="session")
def stack(direct_stack: Stack) -> Stack:
    """The processes on the run's servers, for tests that kill nothing. Modules may choose another."""
    return direct_stack


@pytest.fixture(scope="session")
def direct_stack(
    postgres: EmbeddedServer, valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """The processes with nothing between them and the run's servers."""
    folder = tmp_path_factory.mktemp("stack")
    with new_database(postgres) as database_url:
        stack = Stack(database_url=database_url, redis_url=f"{valkey.url}?db=1", folder=folder)
        stack.start()
        yield stack
        stack.close()


@pytest.fixture(scope="session")
def pgbouncer(postgres: EmbeddedServer) -> Iterator[Pooler]:
    """A pgbouncer in transaction mode before the run's Postgres. Skips the test where it is not installed."""
    pooler = start_pgbouncer(postgres.url)
    yield pooler
    pooler.stop()


@pytest.fixture(scope="session")
def pooled_stack(
    postgres: EmbeddedServer, valkey: EmbeddedServer, pgbouncer: Pooler, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """The processes with pgbouncer between them and Postgres."""
    with new_database(postgres) as database_url:
        stack = Stack(
            database_url=pgbouncer.url_of(database_url),
            redis_url=f"{valkey.url}?db=4",
            folder=tmp_path_factory.mktemp("pooled"),
        )
        stack.start()
        yield stack
        stack.close()


@pytest.fixture(scope="session")
def fuzzed(
    postgres: EmbeddedServer, valkey: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """The processes for requests that are made up, among them such as delete and replay; with secrets for signing."""
    folder = tmp_path_factory.mktemp("fuzzed")
    with new_database(postgres) as database_url:
        stack = Stack(
            database_url=database_url,
            redis_url=f"{valkey.url}?db=3",
            folder=folder,
            workers=1,
            WEBHOOK_SECRETS=f"signing={WEBHOOK_SECRET}",
            GITHUB_WEBHOOK_SECRET=GITHUB_SECRET,
        )
        stack.start()
        yield stack
        stack.close()


@pytest.fixture(scope="session")
def engine(stack: Stack) -> Iterator[Engine]:
    """Connections to the stack's database, for what no command can do yet."""
    engine = create_engine(read_settings(stack.environment), application_name="tests", pool_size=2)
    yield engine
    engine.dispose()


@pytest.fixture
def own_database_url(postgres: EmbeddedServer) -> Iterator[str]:
    """A database for a stack of the test's own."""
    with new_database(postgres) as url:
        yield url


@pytest.fixture
def own_redis_url(valkey: EmbeddedServer) -> str:
    """An empty Redis database for a stack of the test's own."""
    url = f"{valkey.url}?db=2"
    with Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for a stack of the test's own."""
    return tmp_path / "stack"


@pytest.fixture
def agent(stack: Stack) -> Agent:
    """An agent that nobody else uses, of a type of its own: else it would get what other tests delegate."""
    agent = Agent(stack)
    agent.register()
    return agent


@pytest.fixture
def delegate(stack: Stack, session_id: str, agent: Agent) -> Delegate:
    """Delegates tasks of the module's `session_id` to the agent."""
    return delegating(stack, session_id, agent)


@pytest.fixture
def own_postgres(servers_folder: Path) -> Iterator[EmbeddedServer]:
    """A Postgres that the test may stop."""
    server = start_postgres(servers_folder / new_id("postgres"), settings={"fsync": "off"})
    migrate(server.url)
    yield server
    server.stop()


@pytest.fixture
def own_stack(own_postgres: EmbeddedServer, own_redis_url: str, folder: Path) -> Iterator[Stack]:
    """A stack on that Postgres and on the run's Redis, emptied."""
    stack = Stack(database_url=own_postgres.url, redis_url=own_redis_url, folder=folder)
    stack.start()
    yield stack
    stack.close()


@pytest.fixture
def browser(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Browser]:
    """A browser without history. `PICTURES` names a folder in which to leave what was seen."""
    browser = Browser(tmp_path / "browser")
    yield browser
    if pictures := os.environ.get("PICTURES"):
        browser.picture(Path(pictures) / f"{request.node.name}.png")
    browser.close()


@pytest.fixture(params=["direct_stack", "pooled_stack"], ids=["directly", "through pgbouncer"])
def any_stack(request: pytest.FixtureRequest) -> Stack:
    """The processes, with and without a pooler before Postgres."""
    chosen: Stack = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture
def session_id(stack: Stack) -> str:
    """An active session of the test's own."""
    session_id = new_id("walk")
    stack.send("create_session", session_id, title="Walk")
    return session_id


@pytest.fixture(scope="module")
def cli(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """session-cli with the stack in its environment."""
    return CommandLine(tmp_path_factory.mktemp("cli"), RELAY_URL=stack.url, API_KEY=API_KEY)


@pytest.fixture(scope="module")
def rig(servers_folder: Path) -> Iterator[Rig]:
    """Servers and processes of the module's own."""
    with new_rig(servers_folder) as rig:
        yield rig


@pytest.fixture
def poisoned(stack: Stack, engine: Engine) -> Iterator[str]:
    """A session in which memories called `poison-…` cannot be stored."""
    with poisoned_session(stack, engine) as session_id:
        yield session_id

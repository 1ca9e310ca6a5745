"""A running stack for acceptance tests, with a database and a Redis of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from local.servers.embedded import EmbeddedServer
from tests.support.clients.agents import Agent, Delegate, delegating
from tests.support.clients.dead_letters import poisoned_session
from tests.support.clients.signing import GITHUB_SECRET, WEBHOOK_SECRET
from tests.support.processes.browser import Browser
from tests.support.processes.command_line import CommandLine
from tests.support.processes.pooler import Pooler, find_pgbouncer, start_pgbouncer
from tests.support.processes.stack import Stack, new_id, new_stack
from tests.support.project import API_KEY, IS_LONG
from tests.support.servers import new_database, running_postgres
from tests.support.torture.rig import Rig, new_rig


@pytest.fixture(scope="package")
def pgbouncer(postgres: EmbeddedServer) -> Iterator[Pooler]:
    """A pgbouncer in transaction mode in front of the worker's Postgres. Skips the test where it is not installed."""
    pooler = start_pgbouncer(postgres.url)
    yield pooler
    pooler.stop()


@pytest.fixture(scope="package")
def pooled_stack(
    postgres: EmbeddedServer,
    pgbouncer: Pooler,
    tmp_path_factory: pytest.TempPathFactory,
    shared_stacks: list[Stack],
) -> Iterator[Stack]:
    """The processes with pgbouncer between them and Postgres."""
    folder = tmp_path_factory.mktemp("pooled")
    with (
        new_database(postgres) as database_url,
        new_stack(postgres, folder, database_url=pgbouncer.url_of(database_url)) as stack,
    ):
        shared_stacks.append(stack)
        yield stack
        shared_stacks.remove(stack)


@pytest.fixture(scope="package")
def fuzzed(
    postgres: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory, shared_stacks: list[Stack]
) -> Iterator[Stack]:
    """The processes for generated requests, including deletes and replays; with signing secrets."""
    signing = f"signing={WEBHOOK_SECRET}"
    folder = tmp_path_factory.mktemp("fuzzed")
    with new_stack(postgres, folder, WEBHOOK_SECRETS=signing, GITHUB_WEBHOOK_SECRET=GITHUB_SECRET) as stack:
        shared_stacks.append(stack)
        yield stack
        shared_stacks.remove(stack)


@pytest.fixture(scope="session")
def engine(stack_engine: Engine) -> Engine:
    """Connections to the stack's database, for changes that no command can make."""
    return stack_engine


@pytest.fixture
def own_database_url(postgres: EmbeddedServer) -> Iterator[str]:
    """A database for a stack of the test's own."""
    with new_database(postgres) as url:
        yield url


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for a stack of the test's own."""
    return tmp_path / "stack"


@pytest.fixture
def agent(stack: Stack) -> Agent:
    """A new agent of a type of its own, so that it gets no tasks of other tests."""
    agent = Agent(stack)
    agent.register()
    return agent


@pytest.fixture
def delegate(stack: Stack, session_id: str, agent: Agent) -> Delegate:
    """A function that delegates tasks of the module's `session_id` to the agent."""
    return delegating(stack, session_id, agent)


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedServer]:
    """A Postgres that the test may stop."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def own_stack(own_postgres: EmbeddedServer, own_redis_url: str, folder: Path) -> Iterator[Stack]:
    """A stack on that Postgres and on the test's own Redis."""
    with new_stack(own_postgres, folder, database_url=own_postgres.url, redis_url=own_redis_url) as stack:
        yield stack


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The browser of this worker: a start takes as long as several pages."""
    chromium = Browser(tmp_path_factory.mktemp("browser"))
    yield chromium
    chromium.close()


@pytest.fixture
def browser(chromium: Browser, request: pytest.FixtureRequest) -> Iterator[Browser]:
    """A browser without history. Screenshots go to the folder named by `PICTURES`."""
    chromium.begin_anew()
    yield chromium
    if pictures := os.environ.get("PICTURES"):
        chromium.picture(Path(pictures) / f"{request.node.name}.png")
    chromium.leave()


WAYS_TO_POSTGRES = {"through pgbouncer": "pooled_stack"}
if IS_LONG or not find_pgbouncer():
    WAYS_TO_POSTGRES["directly"] = "direct_stack"


@pytest.fixture(params=WAYS_TO_POSTGRES.values(), ids=list(WAYS_TO_POSTGRES))
def any_stack(request: pytest.FixtureRequest) -> Stack:
    """The processes with a pooler in front of Postgres. In long runs, and where there is none, also without."""
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
def rig() -> Iterator[Rig]:
    """Servers and processes of the module's own."""
    with new_rig() as rig:
        yield rig


@pytest.fixture
def poisoned(stack: Stack, engine: Engine) -> Iterator[str]:
    """A session in which memories called `poison-…` cannot be stored."""
    with poisoned_session(stack, engine) as session_id:
        yield session_id

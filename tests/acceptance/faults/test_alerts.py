"""Each alert fires while its trouble lasts, on real servers and processes, and is quiet before and after it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from models.settings import read_settings
from sessions.postgres.connections import create_engine
from tests.support.alerts import read_alerts
from tests.support.metrics import UP, Scrape, parse
from tests.support.processes.stack import new_stack, wait_for
from tests.support.promql import holds
from tests.support.servers import new_folder, running_valkey, start_migrated_postgres
from tests.support.troubles import MAX_BACKLOG, TROUBLES, Place

METRICS_KEY = "metrics-key-of-these-tests"
LOOK_SECONDS = 0.2
"""The pause after a scrape that shows nothing new: a relay shows the same numbers for some seconds."""
ALERTS = read_alerts()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A stack whose servers have durable settings."""
    folder = tmp_path_factory.mktemp("alerts")
    postgres = start_migrated_postgres(new_folder("postgres"), settings={})
    engine = create_engine(read_settings({"DATABASE_URL": postgres.url}), application_name="tests", pool_size=2)
    try:
        with (
            running_valkey() as valkey,
            new_stack(
                postgres,
                folder / "stack",
                database_url=postgres.url,
                redis_url=valkey.url,
                METRICS_KEY=METRICS_KEY,
                MAX_BACKLOG=str(MAX_BACKLOG),
            ) as stack,
        ):
            yield Place(stack, postgres, valkey, engine, folder)
    finally:
        engine.dispose()
        postgres.stop()


@pytest.fixture(scope="module")
def look(place: Place) -> Callable[[], Scrape]:
    """Scrapes as Prometheus does, which notes whether the target answers."""
    headers = {"Authorization": f"Bearer {METRICS_KEY}"}
    last = ("", parse(""))

    def scrape() -> Scrape:
        nonlocal last
        try:
            answer = httpx.get(f"{place.stack.url}/metrics", headers=headers, timeout=10)
        except httpx.TransportError:
            return Scrape(time.monotonic(), {UP: 0.0})
        assert answer.status_code == 200, answer.text
        if answer.text == last[0]:
            time.sleep(LOOK_SECONDS)
        else:
            last = (answer.text, parse(answer.text))
        return Scrape(time.monotonic(), {**last[1].samples, UP: 1.0})

    return scrape


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_fires_while_there_is_its_trouble(place: Place, look: Callable[[], Scrape], name: str) -> None:
    expression = ALERTS[name].expression

    def fires(since: Scrape) -> bool:
        return holds(expression, [since, look()])

    def be_quiet() -> Scrape:
        since = look()
        wait_for(lambda: look().at - since.at > 0.1 and not fires(since), seconds=60, what=f"{name} is quiet")
        return look()

    before = be_quiet()
    with TROUBLES[name](place):
        wait_for(lambda: fires(before), seconds=60, what=f"{name} fires")
    place.stack.wait_until_drained()
    wait_for(lambda: not fires(look()), seconds=60, what=f"{name} is quiet again")

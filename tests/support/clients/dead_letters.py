"""Commands that cannot be applied until the cause in the database is removed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, text

from tests.support.processes.stack import Payload, Stack, new_id, wait_for

FUNCTION = "refuse_poison"


@contextmanager
def poisoned_session(stack: Stack, engine: Engine) -> Iterator[str]:
    """A session in which memories called `poison-…` cannot be stored."""
    session_id = new_id("poisoned")
    stack.send("create_session", session_id, title="Poisoned")
    with engine.begin() as connection:
        connection.execute(
            text(f"""
            CREATE FUNCTION {FUNCTION}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF new.session_id = '{session_id}' AND new.key LIKE 'poison-%' THEN RAISE EXCEPTION 'not yet'; END IF;
                RETURN new;
            END $$;
            CREATE TRIGGER {FUNCTION} BEFORE INSERT ON memories FOR EACH ROW EXECUTE FUNCTION {FUNCTION}()
            """)
        )
    try:
        yield session_id
    finally:
        remove_cause(engine)


def remove_cause(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text(f"DROP FUNCTION IF EXISTS {FUNCTION} CASCADE"))


def dead_letters_in(stack: Stack, session_id: str, **query: str) -> list[Payload]:
    answer = stack.client.get("/v1/dead-letters", params={"session_id": session_id, **query})
    items: list[Payload] = answer.json()["items"]
    return items


def status_of(stack: Stack, delivery_id: str) -> str:
    return str(stack.client.get(f"/v1/deliveries/{delivery_id}").json()["status"])


def send_poison(stack: Stack, session_id: str, count: int) -> list[str]:
    ids = [
        stack.post("store_memory", session_id, key=f"poison-{n}", content={"secret": n})["delivery_id"]
        for n in range(count)
    ]
    wait_for(lambda: len(dead_letters_in(stack, session_id)) == count, what="dead letters")
    return ids

"""Rows as parameters: every text, time and JSON value comes back as it was sent."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from msgspec import Raw
from sqlalchemy import Engine

from sessions.commands.store import StatementFailed
from sessions.postgres.commands.row_parameters import rows_of
from sessions.rules.records import Task

TEXTS = [
    "",
    "NULL",
    "null",
    "{}",
    '{"a",b}',
    "a\\nb",
    "\\\\",
    '\\"',
    "\\u0041",
    "'%s %(x)s",
    "\x01\x1f\x7f",
    "\b\f\n\r\t",
    "e\u0301 \U0001f600",
]
JSONS = [b"null", b'"a\\nb\\\\n"', b'{"b": 1e400,\n "a":-0.0, "a":"\\u00e9"}', b"[1 ,2]", b"{}"]
AT = datetime(1, 1, 1, microsecond=1, tzinfo=UTC)


def task(number: int, **fields: object) -> Task:
    given: dict[str, object] = {
        "agent_name": None,
        "task_type": "general",
        "description": "",
        "description_hash": "",
        "priority": number,
        "input_data": Raw(b"{}"),
        "depends_on": [],
        "not_before": None,
        "max_attempts": 1,
        "created_by": "",
        "created_at": AT,
        "updated_at": AT,
    }
    return Task(session_id="s", task_id=str(number), **given | fields)  # type: ignore[arg-type]


def stored(engine: Engine, tasks: list[Task], *fields: str) -> list[tuple[object, ...]]:
    """The values of these fields as Postgres reads them from the rows of the tasks."""
    rows = rows_of("tasks", tasks)
    named = ", ".join(f"{value} AS {name}" for name, value in zip(rows.names, rows.values, strict=True))
    shown = ", ".join(f"{name}::text" if name in ("input_data", "output") else name for name in fields)
    with engine.begin() as connection:
        found = connection.exec_driver_sql(f"SELECT {shown} FROM (SELECT {named}) AS r", rows.parameters)
        return [tuple(row) for row in found]


@pytest.mark.parametrize("number", [1, 2])
def test_texts_come_back_as_they_were_sent(engine: Engine, number: int) -> None:
    for at in range(0, len(TEXTS), number):
        texts = TEXTS[at : at + number]
        tasks = [task(n, description=text, depends_on=[text, *TEXTS]) for n, text in enumerate(texts)]
        expected = [(text, [text, *TEXTS], n) for n, text in enumerate(texts)]
        assert stored(engine, tasks, "description", "depends_on", "priority") == expected


@pytest.mark.parametrize("number", [1, 5])
def test_json_keeps_its_text_and_null_in_a_nullable_column_is_no_value(engine: Engine, number: int) -> None:
    for at in range(0, len(JSONS), number):
        jsons = JSONS[at : at + number]
        found = stored(
            engine,
            [task(n, input_data=Raw(json), output=Raw(json)) for n, json in enumerate(jsons)],
            "input_data",
            "output",
        )
        assert found == [(json.decode(), None if json == b"null" else json.decode()) for json in jsons]


def test_lists_of_different_length_times_and_missing_values_come_back(engine: Engine) -> None:
    now = datetime.now(UTC)
    tasks = [task(0), task(1, depends_on=["a"], agent_name="", not_before=now), task(2, depends_on=["b", "c"])]
    assert stored(engine, tasks, "depends_on", "agent_name", "not_before", "created_at") == [
        ([], None, None, AT),
        (["a"], "", now, AT),
        (["b", "c"], None, None, AT),
    ]


@pytest.mark.parametrize("field", ["description", "depends_on"])
@pytest.mark.parametrize("texts", [["\0"], ["a", "\\\0"], ["a", "\\u0000\0"]])
def test_a_nul_fails_as_a_value_that_cannot_be_stored(field: str, texts: list[str]) -> None:
    tasks = [task(n, **{field: [text] if field == "depends_on" else text}) for n, text in enumerate(texts)]
    with pytest.raises(StatementFailed) as raised:
        rows_of("tasks", tasks)
    assert raised.value.bad_value

"""Search: which words find which records, in which scripts, and in which order."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection

from models.commands.definitions import Search
from sessions.postgres.reads.read_commands import read
from sessions.reads.read_scope import ReadScope
from sessions.reads.results import ReadResult
from sessions.search.hits import Candidate, rank
from sessions.search.query import parse_query
from sessions.search.ranking import Found
from tests.support.stores.rows import NOW, Rows

GLOB = "search-*"


@pytest.fixture
def walk(connection: Connection) -> Rows:
    return Rows(connection, "search-walk", title="Morning walk")


def search(rows: Rows, q: str, **fields: Any) -> ReadResult:
    where: dict[str, Any] = {"session_id": fields.pop("session_id", None), "session_glob": GLOB, "now": NOW}
    answer = read(rows.connection, Search(q=q, **fields), ReadScope(**where))
    assert len(answer.message) <= 200
    return ReadResult(data=msgspec.json.decode(msgspec.json.encode(answer.data)), message=answer.message)


def ids(answer: ReadResult) -> list[str]:
    return [hit.get("key") or hit.get("chunk_id") or hit["artifact_id"] for hit in answer.data["hits"]]


def test_a_question_in_other_words_finds_the_decision_as_a_partial_match(walk: Rows) -> None:
    walk.memory("db", '"We picked Postgres as database"', "decision")
    walk.memory("roof", '"Solar panels for the roof"', "idea")
    answer = search(walk, "what did we decide about the database")
    assert ids(answer) == ["db"]
    (hit,) = answer.data["hits"]
    assert answer.data["match"] == "partial"
    assert {name: hit[name] for name in ("area", "session_id", "session_title", "key", "type", "match", "at")} == {
        "area": "memories",
        "session_id": "search-walk",
        "session_title": "Morning walk",
        "key": "db",
        "type": "decision",
        "match": "partial",
        "at": "2026-10-31T12:00:02Z",
    }
    assert "as **database**" in hit["snippet"]
    assert answer.message == "Found 1 hit for some of the words in all sessions."


def test_full_matches_come_before_partial_ones(walk: Rows) -> None:
    walk.memory("both", '"the solar roof was chosen"')
    walk.memory("one", '"a roof"')
    walk.memory("none", '"a wall"')
    answer = search(walk, "solar roofs")
    assert [(hit["key"], hit["match"]) for hit in answer.data["hits"]] == [("both", "all"), ("one", "partial")]
    assert answer.data["match"] == "all"


def test_more_distinct_words_rank_above_more_occurrences(walk: Rows) -> None:
    walk.chunk("often", "database " * 50)
    walk.chunk("two", "the price of a database")
    assert ids(search(walk, "database price elephants")) == ["two", "often"]


def test_all_areas_or_the_named_ones_are_searched(walk: Rows) -> None:
    walk.chunk("c1", "Let us talk about budgets")
    walk.memory("m1", '"The budget is 40"', "fact", tags=["money"])
    walk.artifact("a1", '"# Budget"', name="Budget 2027", type="report")
    found = search(walk, "budget")
    assert {(hit["area"], hit.get("type"), hit.get("name")) for hit in found.data["hits"]} == {
        ("conversations", None, None),
        ("memories", "fact", None),
        ("artifacts", "report", "Budget 2027"),
    }
    assert ids(search(walk, "budget", areas=["conversations"])) == ["c1"]
    assert ids(search(walk, "budget", type="report")) == ["a1"]
    assert ids(search(walk, "budget", tags=["money", "x"])) == ["m1"]
    assert ids(search(walk, "budget", areas=["artifacts"], tags=["money"])) == []


def test_search_is_limited_by_session_pattern_and_period(walk: Rows) -> None:
    other = Rows(walk.connection, "search-other")
    hidden = Rows(walk.connection, "hidden")
    for rows in (walk, other, hidden):
        rows.memory(f"of {rows.session_id}", '"budget"')
    walk.memory("early", '"budget"', updated_at=NOW - timedelta(days=30))
    assert sorted(ids(search(walk, "budget"))) == ["early", "of search-other", "of search-walk"]
    assert ids(search(walk, "budget", session_id="search-other")) == ["of search-other"]
    assert ids(search(walk, "budget", until="7d")) == ["early"]


def test_inflected_german_words_are_found_by_their_beginning(walk: Rows) -> None:
    walk.chunk("plural", "Die Wärmepumpen sind zu teuer, sagt Jörg.")
    walk.chunk("exact", "Eine Wärmepumpe fürs Haus")
    found = search(walk, "wärmepumpe")
    assert [(hit["chunk_id"], hit["match"]) for hit in found.data["hits"]] == [("exact", "all"), ("plural", "all")]
    assert "**Wärmepumpen**" in found.data["hits"][1]["snippet"]
    assert ids(search(walk, "JÖRG")) == ["plural"]


def test_chinese_is_found_as_a_substring_then_by_pairs(walk: Rows) -> None:
    walk.memory("数据库", '"我们选择了 Postgres 作为数据库。"', "decision")
    walk.chunk("c1", "今天天气很好")
    found = search(walk, "数据库")
    assert ids(found) == ["数据库"]
    assert found.data["match"] == "all"
    assert "**数据库**" in found.data["hits"][0]["snippet"]
    asked = search(walk, "关于数据库我们决定了什么")
    assert ids(asked) == ["数据库"]
    assert asked.data["match"] == "partial"
    assert "我们" in asked.data["hits"][0]["snippet"]
    mixed = search(walk, "postgres 数据库")
    assert (ids(mixed), mixed.data["match"]) == (["数据库"], "all")


@pytest.mark.parametrize(
    ("text", "q"),
    [
        ("データベースはポストグレスに決めました", "データベース"),
        ("เราเลือกฐานข้อมูลแล้ว", "ฐานข้อมูล"),
        ("데이터베이스를 선택했습니다", "데이터베이스"),
        ("Мы выбрали базу данных", "данных"),
        ("اخترنا قاعدة البيانات", "البيانات"),
        ("C_100% sure", "100%"),
    ],
)
def test_text_of_any_script_is_found(walk: Rows, text: str, q: str) -> None:
    walk.chunk("c1", text)
    walk.chunk("c2", "something else")
    assert ids(search(walk, q)) == ["c1"]


@pytest.mark.parametrize(
    "q",
    [
        *("'", '"', "\\", "a & | ! <-> (", "):*", "-", "-roof", "%", "_", "the", "???", "\x00", "a\\'b:*", "or", "😀"),
        *(
            "$1 :x %s %(x)s",
            "数'\\",
            '"unfinished phrase',
            "x " * 500,
            "数" * 1000,
            "<b>",
            "'::tsquery",
            "http://a.b/c?d=e",
        ),
    ],
)
def test_any_text_is_a_query(walk: Rows, q: str) -> None:
    walk.memory("m1", '"the a%b_c solar"')
    answer = search(walk, q)
    assert answer.data["count"] == len(answer.data["hits"])


def test_quotes_ask_for_a_phrase_and_a_minus_excludes(walk: Rows) -> None:
    walk.chunk("near", "a solar roof")
    walk.chunk("apart", "solar power on the roof")
    assert ids(search(walk, '"solar roof"'))[0] == "near"
    assert ids(search(walk, "solar -power"))[0] == "near"
    assert search(walk, "solar -power").data["hits"][0]["match"] == "all"


def test_hits_are_paged_without_gap_or_repeat(walk: Rows) -> None:
    for number in range(12):
        walk.memory(f"all {number}", '"solar roof"')
        walk.memory(f"some {number}", '"solar"')
    found: list[str] = []
    cursor = None
    while True:
        answer = search(walk, "solar roof", limit=5, cursor=cursor)
        found += ids(answer)
        if (cursor := answer.data["next_cursor"]) is None:
            break
    assert len(found) == len(set(found)) == 24
    assert all(key.startswith("all") for key in found[:12])


def test_hits_fit_into_the_budget_for_any_text(walk: Rows) -> None:
    for number in range(10):
        walk.chunk(f"c{number}", "x" * 190_000 + " needle " + '"\\' * 50_000)
        walk.memory(f"m{number}", msgspec.json.encode("needle\n" + "\n".join(['"<b>*' * 30] * 100)).decode())
    for max_characters in (200, 5_000, 90_000):
        answer = search(walk, "needle", limit=500, max_characters=max_characters)
        assert answer.data["hits"]
        assert len(msgspec.json.encode(answer.data).decode()) <= max_characters + 1_500
        assert all("**needle**" in hit["snippet"] for hit in answer.data["hits"])
        assert all(len(hit["snippet"]) < 450 for hit in answer.data["hits"])


def test_an_old_hit_is_found_behind_many_newer_ones_with_a_common_word(walk: Rows, monkeypatch: Any) -> None:
    monkeypatch.setattr("sessions.postgres.reads.search.CANDIDATES", 20)
    walk.memory("wanted", '"We sand the oak stairs in the hallway"')
    walk.memory("chinese", '"我们选择了数据库"')
    for number in range(50):
        walk.memory(f"newer {number}", '"the stairs, the stairs, 我们的楼梯"')
    assert ids(search(walk, "which wood do the stairs in the hallway have"))[0] == "wanted"
    assert ids(search(walk, "我们的数据库"))[0] == "chinese"


def test_a_short_note_ranks_above_a_long_text_with_the_same_words(walk: Rows) -> None:
    walk.memory("note", '"The boiler needs a new valve"')
    others = " ".join(f"{first}{second}" for first in "bcdfghklmnpr" for second in ("at", "et", "it", "ot", "ut"))
    walk.chunk("talk", f"a boiler {others * 20} and a valve {others * 20}")
    walk.chunk("near", f"{others} {others} the boiler has a valve")
    assert ids(search(walk, "boiler valve")) == ["note", "near", "talk"]


def test_a_long_text_is_shown_at_its_best_passage(walk: Rows) -> None:
    text = "talk of this and that " * 3_000 + "the key is under the blue pot " + "and of more " * 3_000
    walk.chunk("talk", text)
    (hit,) = search(walk, "blue pot").data["hits"]
    assert "under the **blue** **pot**" in hit["snippet"]
    assert "under the blue pot" in text[hit["offset"] : hit["offset"] + 2_000]


def test_sessions_and_tasks_are_found_with_their_status(walk: Rows) -> None:
    kitchen = Rows(walk.connection, "search-k1", title="Kitchen renovation", participants=["Mara"])
    kitchen.task("t1", "Ask three carpenters", status="completed", output='{"cheapest": "Holzer"}')
    assert [(hit["area"], hit["status"]) for hit in search(walk, "kitchen").data["hits"]] == [("sessions", "active")]
    (hit,) = search(walk, "holzer", areas=["tasks"]).data["hits"]
    assert (hit["task_id"], hit["status"]) == ("t1", "completed")
    assert "cheapest: **Holzer**" in hit["snippet"]
    assert search(walk, "mara").data["hits"][0]["session_id"] == "search-k1"


def test_superseded_memories_rank_below_their_successors(walk: Rows) -> None:
    walk.memory("old", '"We use MySQL as database"', "decision", status="superseded")
    walk.memory("new", '"We use Postgres as database, not MySQL any more as before"', "decision")
    assert ids(search(walk, "database mysql")) == ["new", "old"]


@pytest.mark.parametrize("q", ["postgress", "postgers", "potgres", "posgtres"])
def test_mistyped_words_are_corrected(walk: Rows, q: str) -> None:
    walk.memory("db", '"We picked Postgres"')
    walk.memory("other", '"We picked nothing"')
    assert ids(search(walk, q)) == ["db"]


def test_deleted_texts_are_not_found(walk: Rows) -> None:
    walk.memory("m", '"budget"')
    walk.connection.exec_driver_sql("DELETE FROM sessions WHERE session_id = 'search-walk'")
    assert ids(search(walk, "budget")) == []
    left = "SELECT count(*) FROM passages WHERE session_id = 'search-walk'"
    assert walk.connection.exec_driver_sql(left).scalar() == 0


OF_OTHERS = """
    INSERT INTO passages (session_id, area, item_id, number, start, text, at, tags, weight, words)
    SELECT 'hidden', 'memories', 'm' || n, 0, 0, 'x', now(), '{}', 1, to_tsvector('simple', %s)
    FROM generate_series(1, 12000) n
"""


def test_ranks_and_corrections_do_not_depend_on_sessions_that_the_key_may_not_read(walk: Rows) -> None:
    walk.memory("db", '"We picked Postgres for the roof"')
    walk.memory("roof", '"The solar roof"')
    for number in range(20):
        walk.memory(f"m{number}", '"The roof of something else"')
    questions = ("postgress", "solar roof", "roof", "postgres")
    before = [search(walk, q).data for q in questions]
    assert before[0]["hits"]
    Rows(walk.connection, "hidden")
    walk.connection.exec_driver_sql(OF_OTHERS, ("postgress roof solar",))
    walk.connection.exec_driver_sql("ANALYZE passages")
    assert [search(walk, q).data for q in questions] == before


def test_an_exact_word_is_found_behind_many_longer_ones(walk: Rows) -> None:
    walk.memory("wanted", '"a cons cell"')
    others = Rows(walk.connection, "hidden")
    others.memory("x", '"x"')
    walk.connection.exec_driver_sql(OF_OTHERS, ("construction conservation",))
    walk.connection.exec_driver_sql("ANALYZE passages")
    everything = ReadScope(session_id=None, session_glob=None, now=NOW)
    for q in ("cons cell", "cons"):
        found = read(walk.connection, Search(q=q), everything).data["hits"]
        assert "wanted" in [hit["key"] for hit in found], q
    assert read(walk.connection, Search(q="constr"), everything).data["hits"], "A common beginning still finds."


def test_a_superseded_memory_with_an_opposite_meaning_does_not_rise() -> None:
    def candidate(key: str, weight: float) -> Candidate:
        found = Found(counts={"roof": 1}, length=5)
        return Candidate(
            area="memories",
            session_id="s",
            item_id=key,
            start=0,
            text="roof",
            at=NOW,
            type="note",
            name=None,
            weight=weight,
            found=found,
            cosine=-0.5,
        )

    query = parse_query("roof of many other things")
    hits = rank([candidate("old", 0.5), candidate("new", 1.0)], query, [1.0] * len(query.terms), by_meaning=True)
    scores = {hit.best.item_id: hit.score for hit in hits}
    assert scores["old"] <= scores["new"]

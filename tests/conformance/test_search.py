"""Search in each store: which words find which records, in which scripts, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from sessions.backend import Backend
from tests.support.stores.sending import SESSION, items, send


def ids(found: list[dict[str, Any]]) -> list[str]:
    return [hit.get("key") or hit.get("chunk_id") or hit["artifact_id"] for hit in found]


def remember(backend: Backend, **contents: str) -> None:
    for key, content in contents.items():
        send(backend, "store_memory", key=key, content=content)


def test_a_question_in_other_words_finds_the_decision_as_a_partial_match(walk: Backend) -> None:
    remember(walk, db="We picked Postgres as database", roof="Solar panels for the roof")
    data = send(walk, "search", None, q="what did we decide about the database")
    assert (ids(data["hits"]), data["match"]) == (["db"], "partial")
    [hit] = data["hits"]
    expected = {"area": "memories", "session_id": SESSION, "session_title": "Morning walk", "type": "general"}
    assert {name: hit[name] for name in expected} == expected
    assert "as **database**" in hit["snippet"]


def test_hits_with_more_of_the_words_come_first(walk: Backend) -> None:
    remember(walk, both="the solar roofs were chosen", one="a roof", none="a wall", often="roof " * 50)
    found = items(walk, "search", q="solar roof")
    assert found[0]["key"] == "both"
    assert {hit["key"]: hit["match"] for hit in found} == {"both": "all", "one": "partial", "often": "partial"}
    ranks = [hit["rank"] for hit in found]
    assert ranks == sorted(ranks, reverse=True)


@pytest.mark.parametrize("q", ["rye -dear", "-dear rye", "rye wheat -dear", 'rye -"is dear"', "rye -DEAR"])
def test_excluded_words_also_exclude_partial_matches(walk: Backend, q: str) -> None:
    remember(walk, dear="Rye bread is dear", cheap="Rye bread is cheap")
    assert ids(items(walk, "search", q=q)) == ["cheap"]


@pytest.mark.parametrize(
    ("text", "q", "is_found"),
    [
        ("We were running databases", "run database", True),
        ("The décor of Jörg", "JÖRG", True),
        ("a well-known fact", "well-known", True),
        ("a solar roof", '"solar roof"', True),
        ("solar power for the roof", '"solar roof" power', False),
        ("solar power", "solar -power", False),
        ("solar power", "wind OR power", True),
        ("the cat", "the", True),
        ("the price of it", '"price of it"', True),
        ("生成数据库", "数据库", True),
        ("データベースはポストグレスに決めました", "データベース", True),
        ("เราเลือกฐานข้อมูลแล้ว", "ฐานข้อมูล", True),
        ("Мы выбрали базу данных", "данных", True),
        ("اخترنا قاعدة البيانات", "البيانات", True),
        ("C_100% sure", "100%", True),
    ],
)
def test_full_matches_are_distinguished_from_partial_ones(walk: Backend, text: str, q: str, is_found: bool) -> None:
    send(walk, "conversation_chunk", chunk_id="c1", content=text)
    send(walk, "conversation_chunk", chunk_id="c2", content="something else")
    found = [hit["chunk_id"] for hit in items(walk, "search", q=q) if hit["match"] == "all"]
    assert found == (["c1"] if is_found else [])


def test_search_can_be_limited_by_area_type_tag_and_session(walk: Backend) -> None:
    send(walk, "create_session", "other", title="Other")
    send(walk, "conversation_chunk", chunk_id="c1", content="Let us talk about budgets")
    send(walk, "store_memory", key="m1", type="fact", content="The budget is 40", tags=["money"])
    send(walk, "add_artifact", "other", artifact_id="a1", name="Budget 2027", type="report", content="# Sum")
    assert set(ids(items(walk, "search", q="budget"))) == {"c1", "m1", "a1"}
    assert ids(items(walk, "search", **{"q": "budget", "in": ["conversations"]})) == ["c1"]
    assert ids(items(walk, "search", q="budget", type="report")) == ["a1"]
    assert ids(items(walk, "search", q="budget", tags=["money", "x"])) == ["m1"]
    assert items(walk, "search", **{"q": "budget", "tags": ["money"], "in": ["artifacts"]}) == []
    assert ids(items(walk, "search", "other", q="budget")) == ["a1"]
    assert items(walk, "search", q="budget", until="1h") == []


def test_hits_are_paged_without_gap_or_repeat(walk: Backend) -> None:
    commands = []
    for number in range(12):
        commands.append({"command": "store_memory", "data": {"key": f"all {number}", "content": "solar roof"}})
        commands.append({"command": "store_memory", "data": {"key": f"some {number}", "content": "solar"}})
    send(walk, "batch", commands=commands)
    found = ids(items(walk, "search", q="solar roof", limit=5))
    assert len(found) == len(set(found)) == 24
    assert all(key.startswith("all") for key in found[:12])


def test_snippets_show_the_words_of_a_long_text(walk: Backend) -> None:
    text = "x " * 5_000 + "the first needle is here " + "y " * 100 + "and the second thread there " + "z " * 5_000
    send(walk, "conversation_chunk", content=text)
    send(walk, "conversation_chunk", content="很" * 500 + "数据库" + "好" * 500)
    [hit] = items(walk, "search", q="needle threads")
    assert "**needle**" in hit["snippet"]
    assert "**thread**" in hit["snippet"]
    [hit] = items(walk, "search", q="数据库")
    assert "**数据库**" in hit["snippet"]
    assert len(hit["snippet"]) < 450


@pytest.mark.parametrize(
    "q",
    [
        "'",
        '"',
        "\\",
        "a & | ! <-> (",
        "):*",
        "-",
        "-roof",
        "%",
        "_",
        "???",
        "or",
        "😀",
        "数'\\",
        '"unfinished',
        "数" * 999,
    ],
)
def test_any_text_is_a_query(walk: Backend, q: str) -> None:
    remember(walk, m1="the a%b_c solar")
    data = send(walk, "search", None, q=q)
    assert data["count"] == len(data["hits"])


@pytest.mark.parametrize("word", ["a_", "~/", "store_", "a_b~/"])
def test_long_words_of_underscores_are_stored_and_found_at_once(walk: Backend, word: str) -> None:
    """The parser of Postgres takes quadratic time for them: half a minute for this one."""
    remember(walk, long=word * 20_000 + " solar", short="snake_case is a spelling")
    assert ids(items(walk, "search", q="solar")) == ["long"]


def test_parts_of_names_with_underscores_are_words(walk: Backend) -> None:
    remember(walk, name="call snake_case_name here", other="of another kind")
    for q in ("snake_case", "snake_case_name", "case", "snake case"):
        [hit] = items(walk, "search", q=q)
        assert (hit["key"], hit["match"]) == ("name", "all"), q
        assert "_" in hit["snippet"]


def test_a_letter_that_is_normalized_to_a_backslash_is_stored_and_found(walk: Backend) -> None:
    remember(walk, path="The files are in temp\ufe68 and in backup\ufe68old", other="of another kind")
    for q in ("temp\ufe68", "backup\ufe68old", "files"):
        assert ids(items(walk, "search", q=q)) == ["path"], q


@pytest.mark.parametrize("q", ["postgers", "potsgres", "postgrse", "psotgres"])
def test_mistyped_words_are_corrected(walk: Backend, q: str) -> None:
    remember(walk, db="We picked Postgres", other="We picked nothing")
    assert ids(items(walk, "search", q=q)) == ["db"]


def test_words_of_tags_and_keys_exclude_a_memory_too(walk: Backend) -> None:
    send(walk, "store_memory", key="draft-1", content="the solar roof", tags=["secondary"])
    send(walk, "store_memory", key="final-1", content="the solar roof", tags=["primary"])
    assert ids(items(walk, "search", q="solar -secondary")) == ["final-1"]
    assert ids(items(walk, "search", q="solar -draft")) == ["final-1"]


def test_the_offset_of_a_hit_is_where_its_text_is_read(walk: Backend) -> None:
    long = "talk of this and that 😀 ﬁ " * 1_000 + "the key is under the blue pot " + "and of more " * 1_000
    send(walk, "store_memory", key="text", content=long)
    send(walk, "store_memory", key="json", content={"rooms": [long], "colour": "blue"})
    send(walk, "add_artifact", artifact_id="text", name="Text", content=long)
    send(walk, "add_artifact", artifact_id="json", name="Json", content={"rooms": [long], "colour": "blue"})
    send(walk, "conversation_chunk", chunk_id="text", content=long)
    hits = {(hit["area"], hit.get("key") or hit.get("artifact_id")): hit for hit in items(walk, "search", q="blue pot")}
    readers: dict[str, tuple[str, str]] = {
        "memories": ("retrieve_memory", "memory"),
        "artifacts": ("get_artifact", "artifact"),
    }
    for area, (command, field) in readers.items():
        name = {"memories": "key", "artifacts": "artifact_id"}[area]
        offset = hits[area, "text"]["offset"]
        read = send(walk, command, **{name: "text", "offset": offset, "max_characters": 5_000})[field]
        assert "under the blue pot" in read["content"][:2_000]
        assert read["content"][:100] == long[offset : offset + 100]
        assert "offset" not in hits[area, "json"], "JSON is read as it was sent, and so at other offsets."
    offset = hits["conversations", None]["offset"]
    [chunk, *_] = send(walk, "read_conversation", chunk_id="text", offset=offset, max_characters=5_000)["chunks"]
    assert chunk["content"][:100] == long[offset : offset + 100]

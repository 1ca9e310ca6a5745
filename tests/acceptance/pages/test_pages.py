"""What the pages show: the same as the API, to the same callers, and whatever people and programs wrote as text."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser

import httpx
import pytest

from models.routes import ADDRESSES
from tests.support.clients.agents import Agent
from tests.support.clients.keys import new_key
from tests.support.clients.visitors import HTML, Visitor, text_of
from tests.support.processes.stack import Stack, new_id, new_word, wait_for

HOSTILE = "\u202e<script>alert(1)</script><img src=x onerror=alert(1)>\"'</title></textarea><b>bold</b>"
"""Text that must stay text. Also a name, as it has no control characters."""
NOT_HTML = ("page_events", "page_download", "page_export")
LINKS = "[a](javascript:alert(1)) [b](JaVaScript&colon;alert(1)) [c](data:text/html,x) ![d](https://example.com/d.png)"


@pytest.fixture(scope="module")
def visitor(stack: Stack) -> Visitor:
    """A person with all permissions."""
    return Visitor(stack)


@pytest.fixture(scope="module")
def walk(stack: Stack) -> str:
    """A session with one item of each kind."""
    session_id = new_id("walk")
    stack.send("create_session", session_id, title="Planning on a walk", participants=["Ana"], context="By the lake")
    stack.send("conversation_chunk", session_id, chunk_id="c1", content="Ana: let us talk about the solar roof.")
    stack.send("store_memory", session_id, key="db", type="decision", content="We picked MySQL", tags=["data"])
    stack.send("store_memory", session_id, key="db", content={"decision": "We picked Postgres", "why": "JSON"})
    stack.send("store_memory", session_id, key="ask", type="action_item", content="Ask three installers", due="in 3d")
    agent = Agent(stack)
    agent.register(max_concurrent=5)
    for task_id in ("waits", "asks", "runs", "done"):
        priority = ("waits", "runs", "asks", "done").index(task_id)
        more = {"agent_name": agent.name, "title": f"Task that {task_id}", "priority": priority}
        stack.send("delegate_task", session_id, task_id=task_id, description=f"Do {task_id}", **more)
    agent.perform(agent.claim(), "complete", output="The **best** of five")
    agent.perform(agent.claim(), "ask", question="Two metres, or three?")
    runs = agent.claim()
    agent.perform(runs, "start")
    agent.perform(runs, "heartbeat", progress="Half of them", percent=50)
    stack.send("add_artifact", session_id, artifact_id="a1", name="Prices", content="# Old", format="markdown")
    stack.send("add_artifact", session_id, artifact_id="a1", name="Prices", content="# New\n\n| a |\n|--:|\n| 1 |")
    return session_id


@pytest.fixture(scope="module")
def hostile(stack: Stack) -> str:
    """A session in which everything is hostile."""
    session_id = new_id("hostile")
    stack.send("create_session", session_id, title=HOSTILE, participants=[HOSTILE], context=HOSTILE)
    stack.send("conversation_chunk", session_id, chunk_id="c", content=HOSTILE + "\x1b[31m", participants=[HOSTILE])
    stack.send("store_memory", session_id, key=HOSTILE, content=HOSTILE, tags=[HOSTILE])
    stack.send("store_memory", session_id, key="object", content={HOSTILE: HOSTILE, "deep": [[HOSTILE]]})
    stack.send("delegate_task", session_id, task_id="t", description=HOSTILE, title=HOSTILE, agent_name="nobody")
    for kind in ("markdown", "html", "svg"):
        content = HOSTILE + "\n\n" + LINKS
        stack.send("add_artifact", session_id, artifact_id=kind, name=HOSTILE, content=content, format=kind)
    return session_id


class Elements(HTMLParser):
    """Collects the elements of a page, and their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def pages_of(session_id: str) -> list[str]:
    """Return the paths of all pages of a session."""
    ids = {"session_id": session_id, "task_id": "t", "artifact_id": "markdown", "key": "object"}
    addresses = [address for name, address in ADDRESSES.items() if name.startswith("page_") and name not in NOT_HTML]
    own = [address for address in addresses if address.method == "GET" and "{session_id}" in address.path]
    return [address.template.format_map(ids) for address in own]


def test_sessions_are_listed_with_state_and_counts(stack: Stack, visitor: Visitor, walk: str) -> None:
    page = text_of(visitor.get("/"))
    assert re.search(r"Planning on a walk active .* 1 message 2 memories 4 tasks, 3 open 1 artifact", page)
    assert "Planning on a walk" not in text_of(visitor.get("/?status=paused"))
    assert "No sessions are completed" in text_of(visitor.get("/?status=completed"))
    assert visitor.client.get("/?status=asleep").status_code == 422


def test_a_session_shows_its_conversation(visitor: Visitor, walk: str) -> None:
    page = text_of(visitor.get(f"/sessions/{walk}"))
    assert "Ana: let us talk about the solar roof." in page
    assert "By the lake" in page


def test_memories_are_shown_by_type_and_tag(visitor: Visitor, walk: str) -> None:
    page = text_of(visitor.get(f"/sessions/{walk}/memories"))
    assert "We picked Postgres why: JSON" in page
    assert "action item open due 20" in page
    assert "Ask three installers" not in text_of(visitor.get(f"/sessions/{walk}/memories?type=decision"))
    assert "Ask three installers" not in text_of(visitor.get(f"/sessions/{walk}/memories?tag=data"))
    assert "We picked Postgres" not in text_of(visitor.get(f"/sessions/{walk}/memories?status=open"))


def test_a_memory_shows_its_earlier_revisions(visitor: Visitor, walk: str) -> None:
    page = text_of(visitor.get(f"/sessions/{walk}/memories/db"))
    assert re.search(r"We picked Postgres why: JSON .*Earlier revisions revision 1 .*We picked MySQL", page)


def test_tasks_are_a_board(visitor: Visitor, walk: str) -> None:
    page = text_of(visitor.get(f"/sessions/{walk}/tasks"))
    order = ["Asking 1", "Two metres, or three?", "Running 1", "Half of them", "Waiting 1", "Done 1", "Task that done"]
    assert sorted(order, key=page.index) == order
    assert 'value="50.0"' in visitor.get(f"/sessions/{walk}/tasks")
    assert "<strong>best</strong> of five" in visitor.get(f"/sessions/{walk}/tasks/done")
    assert "The agent asks Two metres, or three?" in text_of(visitor.get(f"/sessions/{walk}/tasks/asks"))
    assert "Task that waits" in text_of(visitor.get(f"/sessions/{walk}/tasks?status=pending"))


def test_an_artifact_is_rendered_at_any_revision(visitor: Visitor, walk: str) -> None:
    assert "Prices" in text_of(visitor.get(f"/sessions/{walk}/artifacts"))
    latest = visitor.get(f"/sessions/{walk}/artifacts/a1")
    assert "<h3>New</h3>" in latest
    assert '<td class="right">1</td>' in latest
    assert "<h3>Old</h3>" in visitor.get(f"/sessions/{walk}/artifacts/a1?revision=1")


def test_artifacts_with_one_name_are_shown_with_their_ids_and_tasks(stack: Stack, visitor: Visitor) -> None:
    session_id = new_id("mails")
    stack.send("create_session", session_id, title="Mails")
    for name in ("Anna", "Ben"):
        stack.send("delegate_task", session_id, task_id=name, description=f"Write to {name}")
        artifact = {"artifact_id": f"mail-{name}", "name": "mail.md", "content": name, "task_id": name}
        stack.send("add_artifact", session_id, **artifact)
    stack.send("add_artifact", session_id, artifact_id="own", name="notes.md", content="x")
    page = text_of(visitor.get(f"/sessions/{session_id}/artifacts").partition('id="items"')[2])
    assert re.search("notes.md .*own .*mail.md .*mail-Ben from Write to Ben .*mail-Anna from Write to Anna", page)


def test_an_artifact_is_downloaded_whole_as_a_file(stack: Stack, visitor: Visitor, walk: str, session_id: str) -> None:
    long = "".join(f"line {number}: \u202e<script>\n" for number in range(9_000))
    stack.send("add_artifact", session_id, artifact_id="long", name="../Über \u202e<b>", content=long, format="html")
    answer = visitor.client.get(f"/sessions/{session_id}/artifacts/long/download")
    assert (answer.status_code, answer.content) == (200, long.encode())
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''_%C3%9Cber%20_b_.html"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    first = visitor.client.get(f"/sessions/{walk}/artifacts/a1/download?revision=1")
    assert (first.text, "Prices.md" in first.headers["content-disposition"]) == ("# Old", True)
    stack.send("add_artifact", session_id, artifact_id="json", name="Data", content={"a": [1.50]}, format="json")
    assert visitor.client.get(f"/sessions/{session_id}/artifacts/json/download").text == '{"a":[1.5]}'


def test_the_journal_is_shown_from_the_latest_back(stack: Stack, visitor: Visitor) -> None:
    session_id = new_id("journal")
    stack.send("create_session", session_id, title="Journal")
    for number in range(40):
        stack.send("store_memory", session_id, key=f"k{number}", content=f"number {number}")
    assert stack.try_send("retrieve_memory", session_id, key="none").status_code == 404
    events = [event["message"] for event in reversed(stack.journal(session_id))]
    page, shown = f"/sessions/{session_id}/journal", []
    while page:
        content = visitor.get(page)
        shown += re.findall(r'<p class="text">(.*?)</p>', content)
        found = re.search(r'href="([^"]+)" rel="next"', content)
        page = found[1].replace("&amp;", "&") if found else ""
    assert [text_of(text) for text in shown] == events


def test_a_search_leads_to_the_place(stack: Stack, visitor: Visitor, session_id: str) -> None:
    word = new_word("quag")
    before, after = "Before it. " * 1_000, "After it. " * 1_000
    stack.send(
        "conversation_chunk", session_id, chunk_id=f"long-{word}", content=f"{before}The {word} was here. {after}"
    )
    stack.send("store_memory", session_id, key=f"key-{word}/a?b", content=f"About {word}")
    stack.send("add_artifact", session_id, artifact_id=f"a-{word}", name="Long", content=before + word)
    stack.send("delegate_task", session_id, task_id=f"t-{word}", description=f"Find {word}", agent_name="nobody")
    page = visitor.get(f"/?q={word}")
    links = [link.replace("&amp;", "&") for link in re.findall(r'<h2><a href="([^"]+)">', page)]
    assert len(links) == 4
    for link in links:
        assert word in text_of(visitor.get(link.partition("#")[0]).partition("<main")[2]), link
    [place] = [link for link in links if "chunk_id" in link]
    shown = visitor.get(place.partition("#")[0])
    lead = shown.partition('id="found"')[0].rpartition('<li class="card chunk"')[2]
    assert 300 < len(text_of(lead)) < 1_200
    assert f"<mark>{word}</mark>" in page
    assert text_of(visitor.get(f"/?q={word}&session_id={session_id}")).count(word) > 4
    assert "Nothing was found" in text_of(visitor.get(f"/?q={new_word('none')}"))


def test_a_long_conversation_is_shown_in_parts(stack: Stack, visitor: Visitor) -> None:
    session_id = new_id("long")
    stack.send("create_session", session_id, title="Long")
    sizes = [10, 200_000, 10, 10, 30_000, 30_000, *[10] * 60]
    for number, size in enumerate(sizes):
        stack.send("conversation_chunk", session_id, chunk_id=f"c{number}", content=f"<{number}>" + "x" * size)
    path = f"/sessions/{session_id}"
    order: list[str] = []
    while path:
        page = visitor.get(path)
        order = re.findall(r'data-chunk="c(\d+)"', page) + order
        assert len(page) < 120_000
        found = re.search(r'data-load="before" href="([^"]+)"', page)
        path = found[1] if found else ""
    assert [int(number) for number in order] == list(range(len(sizes)))
    part = visitor.get(f"/sessions/{session_id}?before=c2")
    text = ""
    while True:
        text += "".join(re.findall(r'data-chunk="c1".*?</li>', part, re.DOTALL))
        found = re.search(r'data-load="after" href="([^"]+)"', part)
        if 'data-chunk="c2"' in part:
            break
        assert found
        part = visitor.get(found[1])
    assert len("".join(re.findall("x{20,}", text))) == 200_000
    later = visitor.get(f"/sessions/{session_id}?after=c60")
    assert re.findall(r'data-chunk="c(\d+)"', later) == ["61", "62", "63", "64", "65"]
    assert 'data-live="append"' in later


@pytest.mark.serial
def test_a_session_with_ten_thousand_items_opens_quickly(stack: Stack, visitor: Visitor) -> None:
    session_id = new_id("large")
    stack.send("create_session", session_id, title="Large")
    for part in range(20):
        items = [
            {"command": "conversation_chunk", "data": {"content": f"Message {part * 250 + number}."}}
            for number in range(250)
        ]
        items += [
            {"command": "store_memory", "data": {"key": f"k{part}-{number}", "content": f"Memory {number}"}}
            for number in range(250)
        ]
        stack.send("batch", session_id, commands=items)
    for path in ("", "/memories", "/tasks", "/journal"):
        fastest = min(_seconds(visitor, f"/sessions/{session_id}{path}") for _ in range(3))
        assert fastest < 0.3, path
    assert "Message 4999." in visitor.get(f"/sessions/{session_id}")
    assert "Message 4900." not in visitor.get(f"/sessions/{session_id}")


def _seconds(visitor: Visitor, path: str) -> float:
    began_at = time.perf_counter()
    visitor.get(path)
    return time.perf_counter() - began_at


def test_hostile_content_stays_text(visitor: Visitor, hostile: str) -> None:
    paths = [*pages_of(hostile), f"/sessions/{hostile}/artifacts/html", f"/sessions/{hostile}/artifacts/svg", "/"]
    paths += [f"/deliveries?session_id={hostile}"]
    paths += ["/dead-letters", "/keys", "/hooks", "/refusals", "/agents", "/status"]
    paths += [f"/?q=bold&session_id={hostile}", "/?q=" + "%3Cscript%3Ealert(1)%3C/script%3E"]
    for path in paths:
        page = visitor.get(path)
        elements = Elements(page).found
        assert [attributes for tag, attributes in elements if tag == "script"] == [
            {"src": attributes["src"], "defer": None} for tag, attributes in elements if tag == "script"
        ], path
        assert {tag for tag, _ in elements} <= SAFE_ELEMENTS, path
        for tag, attributes in elements:
            assert not any(name.startswith("on") or name == "style" for name in attributes), (path, tag)
            address = attributes.get("href") or attributes.get("src") or "/"
            assert address.startswith(("/", "#", "https://example.com/d.png")), (path, address)
        title = page.partition("<title>")[2].partition("</title>")[0]
        assert "\u202e" not in title
        assert "<" not in title


SAFE_ELEMENTS = {
    *("html", "head", "meta", "title", "link", "script", "body", "header", "main", "nav", "section", "article"),
    *("a", "img", "form", "label", "input", "button", "details", "summary", "div", "p", "span", "bdi", "strong"),
    *("h1", "h2", "h3", "h4", "ul", "ol", "li", "dl", "dt", "dd", "time", "pre", "code", "mark", "blockquote"),
    *("textarea", "select", "option", "fieldset", "legend"),
    *("svg", "rect", "polyline", "table", "thead", "tbody", "tr", "th", "td"),
}


def test_a_limited_key_sees_only_its_sessions(stack: Stack, walk: str) -> None:
    prefix = new_id("own")
    own = f"{prefix}-1"
    stack.send("create_session", own, title="Mine alone")
    key = new_key(stack, scopes=["read"], sessions=f"{prefix}-*")
    wait_for(lambda: stack.client.get("/v1/sessions", headers={"X-API-Key": key}).status_code == 200)
    visitor = Visitor(stack, key)
    page = text_of(visitor.get("/"))
    assert ("Mine alone" in page, "Planning on a walk" in page) == (True, False)
    assert "solar" not in text_of(visitor.get("/?q=solar+roof").partition("<main")[2].partition("</h1>")[2])
    for path in [*pages_of(walk), f"/sessions/{walk}/events", f"/?q=solar&session_id={walk}"]:
        answer = visitor.client.get(path)
        assert answer.status_code == 403, path
        assert "Planning" not in answer.text
    assert "Mine alone" in visitor.get(f"/sessions/{own}")


def every_page(stack: Stack, hostile: str) -> Iterator[httpx.Response]:
    """Return the answers of all pages, also for people who are signed out, and for errors."""
    for visitor in (Visitor(stack), Visitor(stack, key="")):
        for path in (
            "/",
            *pages_of(hostile),
            "/?q=x",
            "/nothing",
            "/sessions/nothing",
            "/?limit=x",
            "/sign-in",
            "/keys",
        ):
            yield visitor.client.get(path)
    yield httpx.post(f"{stack.url}/", headers={"Accept": HTML})


def test_every_page_has_a_strict_policy_and_is_not_cached(stack: Stack, hostile: str) -> None:
    for answer in every_page(stack, hostile):
        rules = dict(rule.strip().partition(" ")[::2] for rule in answer.headers["content-security-policy"].split(";"))
        assert rules["default-src"] == rules["base-uri"] == rules["frame-ancestors"] == "'none'"
        assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == rules["form-action"] == "'self'"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.text.startswith("<!doctype html>")
        assert 'lang="en"' in answer.text


def test_errors_are_pages_for_people_and_json_for_programs(stack: Stack, visitor: Visitor) -> None:
    page = visitor.get("/nothing", status=404)
    assert "<h1>Not found</h1>" in page
    assert "Unknown URL." in page
    assert "openapi" not in page
    assert "<h1>Not found</h1>" in visitor.get("/sessions/nothing", status=404)
    assert stack.client.get("/nothing").json()["error"]["code"] == "not_found"
    assert stack.client.get("/v1/nothing", headers={"Accept": HTML}).json()["error"]["code"] == "not_found"
    refused = stack.client.post("/webhook", content=b"{", headers={"Accept": HTML, "Content-Type": "application/json"})
    assert refused.json()["error"]["code"] == "not_json"
    head = visitor.client.head("/nothing")
    assert (head.status_code, head.content) == (404, b"")


def test_the_files_of_the_pages_are_kept_by_browsers(stack: Stack, visitor: Visitor) -> None:
    page = visitor.get("/")
    files = sorted(set(re.findall(r'"(/static/[^"]+)"', page)))
    assert len(files) == 4
    for path in files:
        answer = httpx.get(stack.url + path)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
        assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in answer.text
    assert httpx.get(f"{stack.url}/static/..%2fendpoints.py").status_code in (404, 422)

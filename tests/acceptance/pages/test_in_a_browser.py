"""The pages in a real browser: on a phone and on a desk, light and dark, live, with hostile content, and offline.

Skipped on a machine without Chromium.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest

from tests.support.clients.agents import Agent
from tests.support.processes.browser import Browser
from tests.support.processes.stack import Stack, new_id, new_word, wait_for
from tests.support.project import API_KEY, IS_LONG

SCREENS = {"night": (390, True), "desk": (1280, False)}
"""The width of a page, and whether it is dark."""
if IS_LONG:
    SCREENS |= {"phone": (390, False), "dusk": (1280, True)}
CODE = "```py\n@mark  # why\ndef f(): return '<script>', 1\n```\n\n```diff\n+new\n-old\n```\n\n"
MOST_MS = 3_000
"""A limit for the first paint of a page, which takes a tenth of that on a busy machine."""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def shared(chromium: Browser) -> Iterator[Browser]:
    """A browser without history at first, for all tests of the module."""
    chromium.begin_anew()
    yield chromium
    chromium.leave()


@pytest.fixture
def person(shared: Browser, stack: Stack) -> Iterator[Browser]:
    """The browser with somebody signed in. Nothing that it loads comes from elsewhere, and no script complains."""
    shared.requests.clear()
    shared.complaints.clear()
    shared.show_as(width=1280)
    shared.visit(f"{stack.url}/")
    if shared.run("!!document.querySelector('#key')"):
        sign_in(shared)
    yield shared
    assert [url for url in shared.requests if not url.startswith((stack.url, "data:"))] == []
    assert shared.complaints == []


@pytest.fixture(scope="module")
def walk(stack: Stack) -> str:
    """A session with something of each kind, some of it hostile."""
    session_id = new_id("walk")
    hostile = "\u202e<script>document.title = 'stolen'</script><img src=x onerror=\"document.title = 'stolen'\">"
    stack.send("create_session", session_id, title="Solar roof for the cabin", participants=["Ana", hostile])
    store_chunks(stack, session_id, 15)
    stack.send("conversation_chunk", session_id, content=hostile + "W" * 500)
    stack.send("store_memory", session_id, key="battery", type="decision", content="10 kWh", tags=["x" * 100])
    stack.send("store_memory", session_id, key=hostile, content={"deep": [hostile]})
    text = "# Report\n\n" + hostile + "\n\n[link](javascript:document.title='stolen')\n\n|a|b|\n|-|-:|\n|1|2|\n\n"
    stack.send(
        "add_artifact", session_id, artifact_id="a", name="Report " + "N" * 200, content=text + CODE + "`" + "c" * 300
    )
    stack.send("delegate_task", session_id, task_id="t", title="Compare", description=hostile, agent_name="n" * 100)
    return session_id


def store_chunks(stack: Stack, session_id: str, count: int) -> None:
    """Store a conversation of many parts."""
    chunks = [{"chunk_id": f"c{number}", "content": f"Ana: number {number}, of many."} for number in range(count)]
    stack.send("batch", session_id, commands=[{"command": "conversation_chunk", "data": chunk} for chunk in chunks])


def sign_in(browser: Browser) -> None:
    """Fill in the form."""
    browser.run(f"document.querySelector('#key').value = '{API_KEY}'")
    browser.run("document.querySelector('button.main').click()")
    browser.wait_for("document.querySelector('h1')?.innerText === 'Sessions'", what="signed in")


def request_of_an_app(stack: Stack) -> dict[str, str]:
    """Register an app, and return the parameters with which it sends its user to the sign-in page."""
    redirect_uri = "https://app.example/callback"
    app = httpx.post(
        f"{stack.url}/oauth/register",
        json={"client_name": "An app", "redirect_uris": [redirect_uri], "token_endpoint_auth_method": "none"},
    ).json()
    challenge = {"code_challenge": "x" * 43, "code_challenge_method": "S256"}
    return {"client_id": app["client_id"], "redirect_uri": redirect_uri, "response_type": "code", **challenge}


def look_at(browser: Browser, name: str, *, pictures: str = "") -> Iterator[str]:
    """Look at the page on each screen: it has the colours of the scheme, and fits. Yields barriers: of the first screen
    all, of the others those of colours, in long runs all. `pictures`: the beginning of the names of screenshots."""
    rules: Sequence[str] = ()
    for screen, (width, dark) in SCREENS.items():
        browser.show_as(width=width, dark=dark)
        ground = browser.run("getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(20, 22, 26)" if dark else "rgb(245, 246, 248)"), name
        assert browser.run(OVERFLOW) <= 0, (name, screen)
        yield from (f"{name} {barrier}" for barrier in browser.find_barriers(rules=rules))
        rules = () if IS_LONG else ("color-contrast",)
        if folder := os.environ.get("PICTURES"):
            browser.picture(Path(folder) / f"{pictures or name}-{screen}.png")


def test_every_page_fits_the_screen_and_can_be_read(person: Browser, stack: Stack, walk: str) -> None:
    barriers: set[str] = set()
    parts = ("", "/memories", "/memories/battery", "/tasks", "/tasks/t", "/artifacts", "/artifacts/a", "/journal")
    delivery = stack.client.get(f"/v1/deliveries?session_id={walk}&limit=1").json()["items"][0]["delivery_id"]
    # Of long lists, the first items suffice.
    lists = ("/deliveries?limit=10", "/refusals?limit=10")
    admin = ("/status", "/agents", *lists, f"/deliveries/{delivery}", "/keys", "/hooks", "/dead-letters")
    for path in ("/", "/?q=number", *(f"/sessions/{walk}{part}" for part in parts), *admin):
        person.show_as(width=390, dark=True)
        person.visit(stack.url + path)
        assert person.run(
            "document.querySelectorAll('main').length === 1 && document.querySelectorAll('h1').length === 1"
        )
        assert person.run("document.title") != "stolen"
        shown = path.strip("/?").replace("/", "-").replace(walk, "walk").replace(delivery, "one") or "first"
        barriers |= set(look_at(person, path, pictures=shown))
    assert barriers == set()


def test_a_person_signs_in(shared: Browser, stack: Stack) -> None:
    shared.show_as(width=390, dark=True)
    shared.call("Network.clearBrowserCookies")
    shared.complaints.clear()
    shared.visit(f"{stack.url}/?status=active")
    assert shared.run("document.activeElement.id") == "key"
    assert list(look_at(shared, "sign-in")) == []
    sign_in(shared)
    assert shared.run("location.search") == "?status=active"
    assert shared.run("document.cookie") == ""
    assert shared.complaints == []


def test_pages_outside_are_in_the_same_style(person: Browser, stack: Stack) -> None:
    app = f"{stack.url}/oauth/sign-in?{urlencode(request_of_an_app(stack))}"
    for name, url in {"oauth": app, "refused": f"{stack.url}/oauth/sign-in", "none": f"{stack.url}/none"}.items():
        person.show_as(width=390, dark=True)
        person.visit(url)
        assert list(look_at(person, name)) == []
    person.complaints.clear()  # The browser complains about the status 400 and 404.


def test_a_page_changes_while_others_write(person: Browser, stack: Stack, walk: str) -> None:
    person.visit(f"{stack.url}/sessions/{walk}")
    person.wait_for("document.querySelector('#live').innerText === 'live'")
    person.wait_for("scrollY + innerHeight > document.documentElement.scrollHeight - 5", what="at the end")
    word = new_word("live")
    stack.send("conversation_chunk", walk, content=f"Claude: {word} <b>now</b>")
    last = "document.querySelector('#chunks').lastElementChild"
    person.wait_for(f"{last}.innerText.includes('{word} <b>now</b>')", what="shown")
    assert person.run("scrollY + innerHeight > document.documentElement.scrollHeight - 5")
    shown = person.run("document.querySelector('.tabs .number').innerText")
    assert shown == str(stack.client.get(f"/v1/sessions/{walk}").json()["stats"]["conversation_chunks"])

    person.visit(f"{stack.url}/sessions/{walk}/memories")
    person.wait_for("document.querySelector('#live').innerText === 'live'")
    for number in range(3):
        stack.send("store_memory", walk, key=f"{word}{number}", content=word)
    person.wait_for(f"document.querySelector('#items').innerText.split('{word}').length > 6", what="memories shown")


def test_earlier_parts_are_loaded_where_the_reader_is(person: Browser, stack: Stack, session_id: str) -> None:
    store_chunks(stack, session_id, 70)
    person.visit(f"{stack.url}/sessions/{session_id}")
    seen = """[...document.querySelectorAll('[data-chunk^=c]')].map(
        (chunk) => chunk.textContent.match(/number (\\d+),/)?.[1]).filter(Boolean)"""
    before = len(person.run(seen))
    assert before < 40
    person.run("scrollTo(0, 0)")
    first = person.run("document.querySelector('#chunks').firstElementChild.dataset.chunk")
    place = f"document.querySelector('[data-chunk={first}]').getBoundingClientRect().top"
    top = person.run(place)
    person.run("document.querySelector('#earlier a').click()")
    wait_for(lambda: len(person.run(seen)) > before, what="earlier chunks")
    assert abs(person.run(place) - top) < 60

    def all_loaded() -> bool:
        person.run("document.querySelector('#earlier a')?.click()")
        return len(person.run(seen)) == 70

    wait_for(all_loaded, what="all chunks")
    assert [int(number) for number in person.run(seen)] == list(range(70))
    assert not person.run("document.querySelector('#earlier a')")


def test_a_search_opens_the_middle_of_a_long_text(person: Browser, stack: Stack, session_id: str) -> None:
    word = new_word("zebra")
    long = "They went on about everything. " * 1_000
    stack.send("conversation_chunk", session_id, content=f"{long} The {word} was here. {long}")
    person.run(f"document.querySelector('#q').value = '{word}'; document.querySelector('.search').requestSubmit()")
    person.wait_for("document.querySelector('.hits h2 a')")
    assert person.run("document.querySelector('mark').innerText") == word
    person.run("document.querySelector('.hits h2 a').click()")
    person.wait_for("location.hash === '#found' && document.readyState === 'complete'")
    place = f"""(() => {{
      const range = document.createRange();
      const walker = document.createTreeWalker(document.querySelector('#chunks'), NodeFilter.SHOW_TEXT);
      while (walker.nextNode() && !walker.currentNode.data.includes('{word}'));
      range.setStart(walker.currentNode, walker.currentNode.data.indexOf('{word}'));
      return range.getBoundingClientRect().top;
    }})()"""
    wait_for(lambda: 0 < person.run(place) < 844, what="the word in sight")


def test_a_person_answers_an_agent_and_keeps_what_was_typed_while_others_write(
    person: Browser, stack: Stack, walk: str
) -> None:
    agent = Agent(stack)
    agent.register()
    stack.send("delegate_task", walk, title="Ask me", description="Ask", agent_name=agent.name)
    person.show_as(width=390)
    person.visit(f"{stack.url}/sessions/{walk}/tasks")
    person.wait_for("document.querySelector('#live').innerText === 'live'")
    task = agent.claim()
    agent.perform(task, "ask", question="Two metres, or three?")
    field = f"document.querySelector('[id=\"answer-{task['task_id']}\"]')"
    person.wait_for(field, what="the question")
    person.run(f"{field}.focus()")
    person.call("Input.insertText", text="Three <b>metres</b>")
    stack.send("store_memory", walk, content=new_word("meanwhile"))
    stack.send("delegate_task", walk, title=new_word("Another"), description="Another", agent_name="nobody")
    person.wait_for("document.querySelector('.tabs a:nth-child(3) .number').innerText !== '2'", what="other changes")
    assert person.run(f"{field}.value") == "Three <b>metres</b>"
    person.run(f"{field}.form.requestSubmit()")
    person.wait_for(f"document.readyState === 'complete' && !{field}", what="answered")
    again = agent.claim()
    assert again["questions"][-1]["answer"] == "Three <b>metres</b>"
    assert person.run(OVERFLOW) <= 0


def test_a_page_works_with_the_keyboard(person: Browser, stack: Stack, walk: str) -> None:
    person.visit(f"{stack.url}/sessions/{walk}/memories")
    press(person, "Tab")
    assert person.run("document.activeElement.innerText") == "Skip to the content"
    assert person.run("document.activeElement.getBoundingClientRect().height > 20")
    names = []
    for _ in range(12):
        press(person, "Tab")
        names.append(person.run("document.activeElement.innerText || document.activeElement.id"))
        assert person.run("getComputedStyle(document.activeElement).outlineStyle") != "none", names
    assert {"session-relay", "q", "Search", "default", "Sessions"} <= set(names)
    assert any(name.startswith("Conversation") for name in names)


def test_a_page_is_painted_at_once(person: Browser, stack: Stack, walk: str) -> None:
    paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
    for path in ("/", f"/sessions/{walk}"):
        times: list[float] = []
        while not times or times[-1] >= MOST_MS:  # The machine may do something else at the same time.
            assert len(times) < 5, (path, times)
            person.visit(stack.url + path)
            person.wait_for(paint)
            times.append(person.run(paint))


def test_a_refresh_keeps_the_focus_and_the_place(person: Browser, stack: Stack, session_id: str) -> None:
    items = [
        {"command": "store_memory", "data": {"key": f"k{n}", "type": "question", "content": f"{n}?"}} for n in range(20)
    ]
    stack.send("batch", session_id, commands=items)
    person.show_as(width=390)
    person.visit(f"{stack.url}/sessions/{session_id}/memories")
    person.wait_for("document.querySelector('#live').innerText === 'live'")
    button = "document.querySelector('[name=key][value=k5]').form.querySelector('button')"
    person.run(f"{button}.scrollIntoView({{block: 'center'}}); {button}.focus({{preventScroll: true}})")
    left = person.run("document.querySelector('.tabs').scrollLeft = 40, document.querySelector('.tabs').scrollLeft")
    top = person.run(f"{button}.getBoundingClientRect().top")
    word = new_word("above")
    stack.send("store_memory", session_id, content=f"{word}\n\n\n\nand more")
    person.wait_for(f"document.querySelector('#items').innerText.includes('{word}')", what="the new memory")
    assert person.run(f"document.activeElement === {button}")
    assert abs(person.run(f"{button}.getBoundingClientRect().top") - top) < 5
    assert person.run("document.querySelector('.tabs').scrollLeft") == left > 0


def test_a_session_is_deleted_by_typing_its_name(person: Browser, stack: Stack) -> None:
    session_id = new_id("gone")
    stack.send("create_session", session_id, title="Möbel <b>")
    person.show_as(width=390)
    person.visit(f"{stack.url}/sessions/{session_id}")
    delete = "document.querySelector('#delete button').click()"
    person.run("document.querySelector('#manage summary').click(); document.querySelector('#delete summary').click()")
    assert "Möbel <b>" in person.run("document.querySelector('label[for=delete-name]').innerText")
    assert person.run(OVERFLOW) <= 0
    person.run(delete)  # The browser asks for the name.
    assert person.run("document.activeElement.id") == "delete-name"
    person.run(f"document.querySelector('#delete-name').value = 'Another'; {delete}")
    person.wait_for("document.body.innerText.includes('Nothing was deleted')")
    assert stack.client.get(f"/v1/sessions/{session_id}").status_code == 200
    person.visit(f"{stack.url}/sessions/{session_id}")
    person.run(f"document.querySelector('#delete-name').value = 'Möbel <b>'; {delete}")
    person.wait_for("document.querySelector('h1')?.innerText === 'Sessions'", what="deleted")
    assert stack.client.get(f"/v1/sessions/{session_id}").status_code == 404
    person.complaints.clear()  # The browser complains about the status 409.


def test_a_hook_is_created_shown_once_and_revoked(person: Browser, stack: Stack, session_id: str) -> None:
    name = new_id("railway")
    person.show_as(width=390)
    person.visit(f"{stack.url}/hooks")
    person.run(f"document.querySelector('#name').value = '{name}'")
    person.run(f"document.querySelector('#sessions').value = '{session_id}'")
    person.run("document.querySelector('#add button').click()")
    person.wait_for("document.querySelector('#secret')", what="the address")
    url = person.run("document.querySelector('#secret').innerText")
    assert person.run(OVERFLOW) <= 0
    wait_for(lambda: httpx.post(url, json={"deployed": name}).status_code < 300, what="the hook works")
    wait_for(lambda: name in stack.client.get(f"/v1/sessions/{session_id}/memories").text, what="a memory")
    person.visit(f"{stack.url}/hooks")
    assert not person.run("document.querySelector('#secret')")
    assert url.rpartition("/")[2] not in person.run("document.documentElement.outerHTML")
    card = f"[...document.querySelectorAll('li.card')].find((card) => card.querySelector('h2').innerText === '{name}')"
    person.run(f"{card}.querySelector('summary').click(); {card}.querySelector('.danger button').click()")
    person.wait_for(f"{card}?.querySelector('.badge.revoked')", what="shown as revoked")
    wait_for(lambda: httpx.post(url, json={"x": 1}).status_code in (401, 404), what="revoked")


def press(browser: Browser, key: str) -> None:
    """Press a key."""
    for kind in ("rawKeyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=9)


def test_a_revoked_key_signs_the_browser_out(person: Browser, stack: Stack, walk: str) -> None:
    name = new_id("short")
    made = stack.client.post("/v1/keys", json={"name": name, "scopes": ["read"]}).json()
    wait_for(lambda: stack.client.get("/v1/sessions", headers={"X-API-Key": made["key"]}).status_code == 200)
    person.call("Network.clearBrowserCookies")
    person.visit(f"{stack.url}/sessions/{walk}")
    person.run(f"document.querySelector('#key').value = '{made['key']}'; document.querySelector('button.main').click()")
    person.wait_for("document.querySelector('#live')?.innerText === 'live'", what="signed in")
    assert stack.client.delete(f"/v1/keys/{name}").status_code == 200
    person.wait_for("document.querySelector('#key')", what="signed out by itself")
    person.complaints.clear()  # The browser complains about the status 401.

"""The picture in README.md shows the product: it is compared with the page of the same session, coarsely.

`DRAW=1 make test ARGS="-k picture_in_the_readme"` draws it anew.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from tests.support.clients.agents import Agent
from tests.support.processes.browser import Browser
from tests.support.processes.stack import Stack
from tests.support.project import API_KEY, ROOT

PICTURE = ROOT / "docs" / "images" / "session.png"
WIDTH, HEIGHT = 1180, 800
MOST_DIFFERENT = 0.05
"""Mean difference at an eighth of the size: below it with other fonts and times, above on other pages."""
DIFFERENCE = """(async (urls) => {
  const [a, b] = await Promise.all(urls.map(async (url) => {
    const image = new Image();
    image.src = url;
    await image.decode();
    const canvas = document.createElement('canvas');
    canvas.width = image.width / 8;
    canvas.height = image.height / 8;
    const context = canvas.getContext('2d');
    context.imageSmoothingQuality = 'high';
    context.drawImage(image, 0, 0, canvas.width, canvas.height);
    return context.getImageData(0, 0, canvas.width, canvas.height);
  }));
  if (a.width !== b.width || a.height !== b.height) return 1;
  return a.data.reduce((sum, value, at) => sum + Math.abs(value - b.data[at]), 0) / a.data.length / 255;
})"""


@pytest.fixture
def roof(stack: Stack) -> str:
    """A session in the middle of its work."""
    session_id, agent = "solar-roof", Agent(stack, "researcher")
    stack.send("create_session", session_id, title="Solar roof for the cabin", participants=["Ana", "Claude"])
    for text in ("Ana: How many panels fit on the south side?", "Claude: Twelve, with light frames."):
        stack.send("conversation_chunk", session_id, content=text)
    decision = {"decision": "Lithium iron phosphate, 10 kWh", "rationale": "It stands in the cold hall"}
    stack.send("store_memory", session_id, key="battery", type="decision", content=decision)
    stack.send("store_memory", session_id, key="installer", type="question", content="Who installs it?")
    stack.send("store_memory", session_id, key="tilt", type="idea", content="A second row, steeper, for the winter sun")
    stack.send("add_artifact", session_id, artifact_id="offer", name="Offer", type="document", content="# Offer")
    for title, action, fields in (
        ("Compare prices of batteries", "complete", {"output": "The 10 kWh set of three makers costs 2,900 to 3,400."}),
        ("Write to three installers", "heartbeat", {"progress": "Two of three have answered", "percent": 66}),
        ("Find the rules for snow guards", "ask", {"question": "Two sources disagree: 2.5 m or 3 m. Which one?"}),
    ):
        stack.send("delegate_task", session_id, title=title, description=title, agent_name="researcher")
        task = agent.claim(lease_seconds=600)
        agent.perform(task, "start")
        agent.perform(task, action, **fields)
    stack.send("delegate_task", session_id, title="Get snow load", description="At 800 m", agent_name="researcher")
    return session_id


def test_the_picture_in_the_readme_shows_the_page(browser: Browser, stack: Stack, roof: str, tmp_path: Path) -> None:
    browser.show_as(width=WIDTH, height=HEIGHT)
    browser.open(f"{stack.url}/sessions/{roof}/tasks")
    browser.wait_for("document.querySelector('#key')")
    browser.run(f"document.querySelector('#key').value = '{API_KEY}'")
    browser.run("document.querySelector('button.main').click()")
    browser.wait_for("document.querySelector('h1')?.innerText === 'Solar roof for the cabin'")
    browser.run("document.fonts.ready.then(() => { document.documentElement.style.overflow = 'hidden'; })")
    drawn = PICTURE if os.environ.get("DRAW") else tmp_path / "session.png"
    browser.picture(drawn)
    browser.open("about:blank")
    browser.wait_for("location.href === 'about:blank'")
    urls = [f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" for path in (drawn, PICTURE)]
    assert browser.run(f"{DIFFERENCE}({urls})") < MOST_DIFFERENT, "The picture is out of date; see above."

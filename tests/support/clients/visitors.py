"""People who look at the pages, without a browser."""

from __future__ import annotations

import html
import itertools
import re
import weakref

import httpx

from tests.support.processes.stack import Stack
from tests.support.project import API_KEY

HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
"""As browsers send it."""
ADDRESSES = (f"127.3.{number // 250}.{number % 250 + 1}" for number in itertools.count())
"""Each person has an address of their own, as signing in is limited by it."""


class Visitor:
    """A person with a browser of their own."""

    def __init__(self, stack: Stack, key: str = API_KEY) -> None:
        self.url = stack.url
        transport = httpx.HTTPTransport(local_address=next(ADDRESSES))
        self.client = httpx.Client(base_url=stack.url, headers={"Accept": HTML}, timeout=60, transport=transport)
        weakref.finalize(self, self.client.close)
        if key:
            answer = self.sign_in(key)
            assert answer.status_code == 303, answer.text

    def sign_in(self, key: str, *, next_url: str = "/", **headers: str) -> httpx.Response:
        """Send the form of the sign-in page."""
        headers = headers or {"Origin": self.url}
        return self.client.post("/sign-in", data={"key": key, "next": next_url}, headers=headers)

    def get(self, path: str, *, status: int = 200) -> str:
        """Return the HTML of a page."""
        answer = self.client.get(path)
        assert answer.status_code == status, (answer.status_code, answer.text)
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        return answer.text

    def form_token(self, path: str = "/") -> str:
        """Return the token in the forms of a page."""
        found = re.search(r'name="form_token" value="([^"]+)"', self.get(path))
        assert found
        return found[1]

    def post(self, path: str, *, token: str | None = None, origin: str | None = None, **fields: str) -> httpx.Response:
        """Send a form of a page."""
        fields["form_token"] = self.form_token() if token is None else token
        return self.client.post(path, data=fields, headers={"Origin": self.url if origin is None else origin})


def fields_of(page: str, action: str) -> dict[str, str]:
    """Return the hidden fields of a page's form with this action."""
    form = page.partition(f'action="{action}"')[2].partition("</form>")[0]
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form))


def text_of(page: str) -> str:
    """Return the text of a page as people read it."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)))

"""Creates the requests of test_all.sh, and compares the responses with expected.py and error_examples.json.

`check.py plan FOLDER` writes the requests to the folder, for curl, which then prints the number and status of each
response to stderr. `check.py answers FOLDER` reads these from stdin, and the bodies of the responses from the folder.
With `--fresh`, the sessions of the examples are deleted first. Needs only Python 3.9 or newer.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from expected import AFTERWARDS, BIKE, ROOF, STEPS, TRIP, Ask, Get, Has, Refused, Send

EXAMPLES = Path(__file__).parent
MESSAGE_LENGTH = 200
"""The most characters of a message, which may be read aloud."""
SESSIONS = (ROOF, TRIP, BIKE, "example-paused", "example-completed")
"""The sessions of the examples and of the error examples."""
REASON = """
These sessions existed before: {}.
Perhaps they hold something else than the examples, or examples that were sent in another order: then the responses
cannot be the expected ones. To delete these sessions and begin afresh: examples/test_all.sh --fresh"""
SHOWN = 300
"""The most characters shown of a differing value."""
LIMIT_SECONDS = 45
"""For each response, which may wait for 30."""


class Request(NamedTuple):
    """A request and its expected response."""

    name: str
    path: str
    body: bytes
    answer: Any
    """None accepts any success."""
    repeats: bool = False
    with_key: bool = True
    looks_for: str = ""
    """The session for whose existence this asks; the answer is not checked."""


def main(command: str, folder: Path, *options: str) -> int:
    """Run a command; return 1 if a response is wrong or missing."""
    requests = [*preparations(is_fresh="--fresh" in options), *all_requests()]
    if command == "plan":
        url = os.environ["RELAY_URL"].rstrip("/")
        sections = [write_request(request, url, folder, number) for number, request in enumerate(requests)]
        (folder / "requests").write_text("next\n".join(sections), encoding="utf-8")
        return 0
    checked = wrong = 0
    expected = sum(not request.looks_for for request in requests)
    found: list[str] = []
    for line in sys.stdin:
        number, status = map(int, line.split())
        if requests[number].looks_for:
            if "--fresh" not in options:
                found += [requests[number].looks_for] * (status == 200)
            elif status not in (200, 404):
                refused = (folder / f"{number}.answer").read_text(encoding="utf-8", errors="replace")
                print(f"WRONG   {requests[number].looks_for} was not deleted: {shown(refused)}")
                wrong += 1
            continue
        differences = list(check(requests[number], status, (folder / f"{number}.answer").read_bytes()))
        print("WRONG  " if differences else "ok     ", requests[number].name, sep="")
        print(*(f"         {difference}\n" for difference in differences), sep="", end="", flush=True)
        checked, wrong = checked + 1, wrong + bool(differences)
    if checked < expected:
        print(f"Only {checked} of {expected} responses arrived.")
    if wrong:
        print(f"{wrong} of {checked} responses are wrong.")
        if found:
            print(REASON.format(", ".join(found)))
    if wrong or checked < expected:
        return 1
    print(f"All {checked} responses are correct.")
    return 0


def write_request(request: Request, url: str, folder: Path, number: int) -> str:
    """Write the body of a request to a file. Returns the options with which curl sends it."""
    body, answer = folder / f"{number}.body", folder / f"{number}.answer"
    body.write_bytes(request.body)
    answer.touch()  # curl creates none for an empty response.
    options = [("url", url + request.path), ("output", str(answer)), ("max-time", str(LIMIT_SECONDS))]
    options.append(("write-out", f"%{{stderr}}{number} %{{http_code}}\n"))
    if request.with_key:
        options.append(("header", f"@{folder / 'key'}"))
    if request.body:
        options += [("header", "Content-Type: application/json"), ("data-binary", f"@{body}")]
    # It reads quoted values like JSON.
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in options)


def preparations(*, is_fresh: bool) -> Iterator[Request]:
    """Yield what comes before the examples: the look for sessions that exist already, or their deletion."""
    for session_id in SESSIONS:
        if is_fresh:
            delete = {"command": "delete_session", "session_id": session_id, "data": {"confirm": session_id}}
            yield Request("", "/v1/webhook?wait=30", json.dumps(delete).encode(), None, looks_for=session_id)
        else:
            yield Request("", f"/v1/sessions/{session_id}", b"", None, looks_for=session_id)


def all_requests() -> Iterator[Request]:
    """Yield all examples, error examples, and the reads between and after them, in order."""
    for step in STEPS:
        yield from requests_of(step)
    for case in json.loads((EXAMPLES / "error_examples.json").read_text(encoding="utf-8")):
        for payload in case.get("before", []):
            body = json.dumps(payload).encode()
            yield Request(f"error example: {case['name']}: before", "/v1/webhook?wait=30", body, None)
        expected = case["expected"]
        refused = Refused(expected["http_status"], expected["code"], expected.get("field", ""))
        body = (case["body"] if "body" in case else json.dumps(case["payload"])).encode()
        with_key = not case.get("without_key", False)
        yield Request(f"error example: {case['name']}", "/v1/webhook?wait=30", body, refused, with_key=with_key)
    for step in AFTERWARDS:
        yield from requests_of(step)


def requests_of(step: Any) -> Iterator[Request]:
    """Yield the requests of a step."""
    if isinstance(step, Get):
        yield Request(f"GET {step.path}", step.path, b"", step.answer)
        return
    name = f"{step.example}.json"
    body = (EXAMPLES / name).read_bytes()
    # An example with `sync` needs no `wait`.
    path = "/v1/webhook" if isinstance(step, Ask) else "/v1/webhook?wait=30"
    yield Request(name, path, body, step.answer)
    if isinstance(step, Send):
        yield Request(f"{name}, sent again", path, body, step.again or step.answer, repeats=True)


def check(request: Request, status: int, text: bytes) -> Iterator[str]:
    """Yield the differences between a response and the expected one."""
    try:
        answer = json.loads(text)
    except ValueError:
        yield f"status {status}, and the body is not JSON: {shown(text.decode(errors='replace'))}"
        return
    expected = request.answer
    wanted = expected.status if isinstance(expected, Refused) else 200
    if status != wanted:
        yield f"status: expected {wanted}, got {status}: {shown(answer)}"
        return
    if answer.get("type") == "collaborative_session_response":
        yield from check_response(request, answer)
    elif request.body and wanted == 200:
        yield f"not the response of a command: {shown(answer)}"
        return
    if isinstance(expected, Refused):
        error = answer.get("error", {})
        if error.get("code") != expected.code or (expected.field and error.get("field") != expected.field):
            yield f"error: expected {expected.code} in {expected.field or 'any field'}, got {shown(error)}"
        if not error.get("message") or not isinstance(error.get("retryable"), bool):
            yield f"the error has no message, or does not say whether it is retryable: {shown(error)}"
        if expected.data is not None:
            yield from compare(expected.data, answer.get("data"), "data")
    elif expected is not None:
        yield from compare(expected, answer["data"] if request.body else answer, "data" if request.body else "body")


def check_response(request: Request, answer: Any) -> Iterator[str]:
    """Check the properties that all responses to commands share."""
    sent = json.loads(request.body)
    outcome = "error" if isinstance(request.answer, Refused) else "success"
    same = {"command": sent["command"], "session_id": sent.get("session_id"), "status": outcome}
    yield from compare({**same, "delivery_id": bool, "now": lambda text: text.endswith("Z")}, answer, "")
    if not 0 < len(answer.get("message", "")) <= MESSAGE_LENGTH:
        yield f"message: expected 1 to {MESSAGE_LENGTH} characters, got {answer.get('message')!r}"
    if request.repeats:
        for result in [answer, *answer["data"].get("results", [])]:
            if result["data"].get("created") is True:
                yield f"sent again, {result['command']} created something: {shown(result['data'])}"


def compare(expected: Any, got: Any, path: str) -> Iterator[str]:
    """Yield where `got` differs: objects must contain the expected fields, lists exactly the expected items."""
    if callable(expected):
        try:
            fits = expected(got)
        except Exception as error:  # A response of another shape is wrong, not a reason to stop.
            fits = not error
        if not fits:
            yield f"{path}: unexpected value: {shown(got)}"
    elif isinstance(expected, Has):
        for item in expected.items:
            if not isinstance(got, list) or not any(not list(compare(item, one, path)) for one in got):
                yield f"{path}: expected one like {shown(item)}, got {shown(got)}"
    elif isinstance(expected, dict) and isinstance(got, dict):
        for name, value in expected.items():
            yield from compare(value, got.get(name), f"{path}.{name}".lstrip("."))
    elif isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        for number, value in enumerate(expected):
            yield from compare(value, got[number], f"{path}[{number}]")
    elif expected != got:
        yield f"{path}: expected {shown(expected)}, got {shown(got)}"


def shown(value: Any) -> str:
    """Format a value on one line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=lambda _: "…")
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:]))

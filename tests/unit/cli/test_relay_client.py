"""The client of the relay, against a server that responds as relays and proxies may."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import msgspec
import pytest

from agent.http.client import Client
from agent.http.command_client import send_command
from agent.http.error_responses import CHECK_ADDRESS, NoRelay, error_of
from agent.http.relay_url import is_loopback, may_send_secrets, parse_address, parse_key, plain_http_hosts
from models.error_parsing import parse_error
from models.errors import (
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Rejected,
    RelayError,
    SettingsError,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)

KEY = "srk_unmistakable"


class Script(ThreadingHTTPServer):
    """Gives the scripted responses in order, and records the requests."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, dict[str, str], bytes] | None] = []
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def will(self, status: int, content: Any = None, **headers: str) -> None:
        """Add a response. `will(0)` closes the connection without one."""
        body = content if isinstance(content, bytes) else json.dumps(content or {}).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers.append((status, given, body) if status else None)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Script

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        answer = self.server.answers.pop(0)
        if answer is None:
            self.close_connection = True
            return
        status, headers, body = answer
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = "Content-Length" in headers

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def script() -> Iterator[Script]:
    """A server that follows a script."""
    server = Script()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def told() -> list[str]:
    """The messages that the client has reported."""
    return []


@pytest.fixture
def client(script: Script, told: list[str]) -> Iterator[Client]:
    """A client of the server."""
    client = Client(script.url, KEY, on_retry=told.append)
    yield client
    client.close()


def error_body(code: str, **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": f"It is {code}.", "retryable": False, **more}}


SUCCESS = {"status": "success", "command": "pause_session", "session_id": "s", "message": "Done.", "data": {}}


class TestErrors:
    KINDS: ClassVar[dict[tuple[int, str], type[RelayError]]] = {
        (401, "key_missing"): Unauthorized,
        (403, "forbidden"): Forbidden,
        (404, "session_not_found"): NotFound,
        (409, "session_paused"): Conflict,
        (422, "invalid_field"): Invalid,
        (418, "teapot"): Rejected,
        (429, "rate_limited"): TooManyRequests,
        (500, "internal"): Unavailable,
        (503, "backlog_full"): Unavailable,
    }

    @pytest.mark.parametrize(("status", "code"), KINDS)
    def test_each_status_becomes_its_error_with_all_fields(self, status: int, code: str) -> None:
        body = {**error_body(code, field="data.x", expected="a number", hint="Try 7."), "data": {"revision": 2}}
        error = error_of(status, msgspec.json.encode(body), {"retry-after": "7"})
        assert isinstance(error, self.KINDS[status, code])
        assert (error.code, error.message, error.field) == (code, f"It is {code}.", "data.x")
        assert (error.expected, error.hint) == ("a number", "Try 7.")
        if isinstance(error, Unavailable | TooManyRequests):
            assert error.retry_after_seconds == 7
        else:
            assert error.data == {"revision": 2}

    @pytest.mark.parametrize("body", [b"", b"<html>Bad", b"[1]", b'{"error": 1}', b'{"error": {}}', b"[" * 9999])
    def test_a_response_of_another_server_is_reported_as_such(self, body: bytes) -> None:
        stranger = error_of(404, body, {})
        assert isinstance(stranger, NoRelay)
        assert stranger.hint == CHECK_ADDRESS
        away = error_of(502, body, {"retry-after": "3"})
        assert isinstance(away, Unavailable)
        assert away.retry_after_seconds == 3

    def test_a_rejected_delivery_becomes_its_error(self) -> None:
        assert isinstance(parse_error(error_body("session_not_found")), NotFound)
        assert isinstance(parse_error(error_body("revision_conflict")), Conflict)
        assert isinstance(parse_error(error_body("forbidden")), Forbidden)
        assert type(parse_error(error_body("invalid")["error"])) is Invalid


class TestRepeating:
    def test_a_command_is_sent_again_under_the_same_id(self, script: Script, client: Client, told: list[str]) -> None:
        script.will(503, error_body("unavailable", retryable=True), Retry_After="0")
        script.will(0)
        script.will(200, SUCCESS)
        assert send_command(client, "pause_session", {}, session_id="s")["message"] == "Done."
        ids = {headers["idempotency-key"] for _, _, headers in script.asked}
        assert (len(script.asked), len(ids)) == (3, 1)
        assert [text.partition(" Retrying")[0] for text in told] == [
            "It is unavailable.",
            f"The connection to {script.url} was lost.",
        ]

    def test_it_gives_up_after_some_attempts(self, script: Script, client: Client) -> None:
        for _ in range(4):
            script.will(503, error_body("unavailable", retryable=True), Retry_After="0")
        with pytest.raises(Unavailable, match="It is unavailable"):
            send_command(client, "pause_session", {}, session_id="s")
        assert script.answers == []

    @pytest.mark.parametrize("status", [503, 0])
    def test_unsafe_requests_are_sent_once(self, script: Script, client: Client, status: int) -> None:
        script.will(status, error_body("unavailable", retryable=True))
        with pytest.raises(Unavailable):
            client.call("POST", "/v1/keys", body=b"{}")
        assert len(script.asked) == 1

    def test_a_rate_limited_request_is_sent_again_after_its_delay(self, script: Script, client: Client) -> None:
        script.will(429, error_body("rate_limited", retryable=True), Retry_After="1")
        script.will(200, {"items": []})
        assert client.get("/v1/sessions") == {"items": []}

    def test_a_rate_limited_download_is_requested_again(self, script: Script, client: Client) -> None:
        script.will(429, error_body("rate_limited", retryable=True), Retry_After="1")
        script.will(200, b"first second")
        with client.stream("/v1/sessions/s/export") as parts:
            assert b"".join(parts) == b"first second"

    def test_an_incomplete_download_is_an_error(self, script: Script, client: Client) -> None:
        script.will(200, b"first", Content_Length="10")
        with client.stream("/v1/sessions/s/export") as parts, pytest.raises(Unavailable, match="was lost"):
            list(parts)

    def test_a_long_retry_delay_is_an_error(self, script: Script, client: Client, told: list[str]) -> None:
        script.will(429, error_body("rate_limited", retryable=True), Retry_After="3600")
        with pytest.raises(TooManyRequests):
            client.get("/v1/sessions")
        assert told == []

    def test_a_limit_that_never_ends_is_not_waited_for(self, script: Script, client: Client) -> None:
        script.will(429, error_body("rate_limited", retryable=False), Retry_After="1")
        with pytest.raises(TooManyRequests):
            client.get("/v1/sessions")
        assert len(script.asked) == 1

    def test_the_limit_of_a_proxy_is_waited_for(self, script: Script, client: Client, told: list[str]) -> None:
        script.will(429, b"<html>slow down</html>", Retry_After="1")
        script.will(200, {"items": []})
        assert client.get("/v1/sessions") == {"items": []}
        assert told == ["The reverse proxy limits the requests to the relay. Retrying in 1 s."]

    def test_a_command_refused_for_lack_of_time_is_sent_again_under_its_id(
        self, script: Script, client: Client
    ) -> None:
        script.will(202, {"status": "pending", "delivery_id": "d", "status_url": "/v1/deliveries/d"})
        script.will(200, {"delivery_id": "d", "status": "rejected", **error_body("reads_too_slow", retryable=True)})
        script.will(200, SUCCESS)
        assert send_command(client, "search", {"q": "x"}, session_id=None) == SUCCESS
        ids = {headers["idempotency-key"] for method, _, headers in script.asked if method == "POST"}
        assert len(ids) == 1

    def test_a_pending_command_is_polled_until_it_is_applied(self, script: Script, client: Client) -> None:
        script.will(202, {"status": "pending", "delivery_id": "d", "status_url": "/v1/deliveries/d"})
        script.will(200, {"delivery_id": "d", "status": "accepted"})
        script.will(200, {"delivery_id": "d", "status": "applied", "result": SUCCESS})
        assert send_command(client, "pause_session", {}, session_id="s") == SUCCESS
        assert [path for _, path, _ in script.asked] == ["/v1/webhook?wait=40", "/v1/deliveries/d", "/v1/deliveries/d"]


class TestSecrecy:
    def test_the_key_is_not_sent_to_another_url(self, script: Script, client: Client) -> None:
        script.will(301, Location="http://127.0.0.1:1/elsewhere")
        with pytest.raises(NoRelay, match=r"redirects to http://127\.0\.0\.1:1/elsewhere"):
            client.get("/v1/sessions")
        assert script.asked[0][2]["x-api-key"] == KEY

    def test_errors_and_representations_do_not_contain_the_key(self, script: Script, client: Client) -> None:
        script.will(0)
        with pytest.raises(Unavailable) as raised:
            client.get("/v1/sessions")
        assert KEY not in f"{raised.value!r} {raised.value.body()} {client!r}"
        with pytest.raises(SettingsError) as refused:
            parse_key(f"{KEY}\n{KEY}")
        assert KEY not in str(refused.value.body())


class TestAddresses:
    @pytest.mark.parametrize(
        ("written", "meant"),
        [
            ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
            (" https://Relay.Example ", "https://relay.example"),
            ("localhost:8000", "http://localhost:8000"),
            ("127.0.0.1", "http://127.0.0.1"),
            ("[::1]:8000", "http://[::1]:8000"),
            ("relay.example", "https://relay.example"),
            ("relay.example:8443/x", "https://relay.example:8443/x"),
            ("10.0.0.1:8000", "https://10.0.0.1:8000"),
            ("localhost.example", "https://localhost.example"),
            ("https://example.org/relay/", "https://example.org/relay"),
            ("http://[::1]:8000", "http://[::1]:8000"),
        ],
    )
    def test_urls_are_normalized(self, written: str, meant: str) -> None:
        assert parse_address(written) == meant

    @pytest.mark.parametrize(
        "written",
        [
            "",
            "ftp://x",
            "http://",
            "http://x:99999",
            "http://key@x",
            "http://x?key=1",
            "http://x y",
            "http://127.0.0.1\\.x",
            "http://a%2eb",
        ],
    )
    def test_invalid_urls_are_refused(self, written: str) -> None:
        with pytest.raises(SettingsError):
            parse_address(written)

    @pytest.mark.parametrize(
        ("url", "may"),
        [
            ("https://relay.example", True),
            ("http://127.0.0.9:1", True),
            ("http://localhost", True),
            ("http://relay.lan:8000", True),
            ("http://[fd00::1]:8000", True),
            ("http://relay.example", False),
            ("http://localhost.example", False),
            ("http://127.0.0.1.example", False),
            ("http://127.0.0.1@relay.example", False),
            ("http://10.0.0.1", False),
            ("http://[::ffff:127.0.0.1]", True),
            ("http://[::ffff:10.0.0.1]", False),
            ("ftp://127.0.0.1", False),
            ("http://[", False),
        ],
    )
    def test_a_key_is_sent_over_https_to_this_machine_or_to_allowed_hosts(self, url: str, may: bool) -> None:
        hosts = plain_http_hosts({"PLAIN_HTTP_HOSTS": " Relay.LAN,,[fd00::1]"})
        assert may_send_secrets(url, hosts) is may
        if not may and "@" not in url and url.startswith("http://") and not url.endswith("["):
            with pytest.raises(SettingsError, match="is not encrypted"):
                Client(url, KEY, plain_hosts=hosts)

    def test_addresses_of_this_machine_are_recognized(self) -> None:
        assert [
            is_loopback(f"http://{host}:1") for host in ("127.0.0.1", "localhost", "[::1]", "10.0.0.1", "x.org")
        ] == [
            True,
            True,
            True,
            False,
            False,
        ]

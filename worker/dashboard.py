"""rq-dashboard as a process, with authentication and protection from cross-site requests.

The pages are rq-dashboard's own; this module adds the guard that it lacks and keeps it from unpickling.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import re
import sys
import time
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

from models.process.missing_packages import explained_if_missing

with explained_if_missing():
    import redis
    import rq.serializers
    import uvicorn
    from a2wsgi import WSGIMiddleware
    from flask import Flask, Response, request
    from jinja2.ext import Extension
    from limits import RateLimitItemPerMinute
    from limits.storage import MemoryStorage
    from limits.strategies import FixedWindowRateLimiter
    from rq.exceptions import NoSuchJobError
    from rq.serializers import JSONSerializer

    from models.errors import SettingsError
    from models.process.log_setup import configure_logging
    from models.process.parent_death import exit_with_parent
    from models.settings import Settings, read_settings

USER = "admin"
THREADS = 4
"""Enough for a handful of people whose pages poll every few seconds."""
SHUTDOWN_SECONDS = 3
REALM = {"WWW-Authenticate": 'Basic realm="session-relay", charset="UTF-8"'}
WRONG_PASSWORDS = RateLimitItemPerMinute(30, 10)
"""For each address, in ten minutes: a person makes fewer mistakes, and a program could not guess a password."""
WITH_PORT = re.compile(r"\[([^\]]*)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}")
"""An address as some proxies write it."""
OWN_SITES = ("same-origin", "none")
"""Sec-Fetch-Site of requests from a page of this dashboard, or from the address bar."""


logger = logging.getLogger("dashboard")


class SignIn:
    """Checks the password of each request. After too many wrong ones, an address has to wait."""

    def __init__(self, settings: Settings) -> None:
        self._password = settings.dashboard_password.encode()
        self._proxy_header = settings.trusted_proxy_header.lower().encode()
        self._limiter = FixedWindowRateLimiter(MemoryStorage())

    def refuse(self) -> Response | None:
        """Return the response that rejects a request, or None."""
        given = request.authorization
        if given is None:
            return Response("Please sign in.\n", 401, REALM)
        address = self._address()
        if not self._limiter.test(WRONG_PASSWORDS, address):
            ends_at = self._limiter.get_window_stats(WRONG_PASSWORDS, address).reset_time
            wait = {"Retry-After": str(max(1, round(ends_at - time.time())))}
            return Response("There were too many wrong passwords. Please try again later.\n", 429, wait)
        name, secret = (given.username or "").encode(), (given.password or "").encode()
        # Both are compared, so that the time does not reveal which one is wrong.
        if all([hmac.compare_digest(name, USER.encode()), hmac.compare_digest(secret, self._password)]):
            return None
        self._limiter.hit(WRONG_PASSWORDS, address)
        logger.warning("Somebody at %s gave a wrong user or password.", address)
        return Response("Please sign in.\n", 401, REALM)

    def _address(self) -> str:
        """Return the client's address; behind a proxy the one that it has added."""
        # WSGI would take `X_Real_IP`, which proxies pass on, for `X-Real-IP`.
        lines = [value for name, value in request.environ["asgi.scope"]["headers"] if name == self._proxy_header]
        told = lines[-1].decode("latin-1").rpartition(",")[2].strip() if lines else ""
        if with_port := WITH_PORT.fullmatch(told):
            told = with_port[1] or with_port[2]
        try:
            address = ip_address(told or request.remote_addr or "")
        except ValueError:
            return "an unknown address"
        if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
            # Who has one address of a /64 has all of them.
            return str(ip_network((address, 64), strict=False))
        return str(getattr(address, "ipv4_mapped", None) or address)


class EscapedFigures(Extension):
    """Makes the scripts of rq-dashboard's pages escape what they show. Tracebacks and names may contain any text, which
    some pages would take for HTML: a script in it could requeue jobs in the name of whoever looks at it."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """Use Underscore's mark for escaped values, except on the page that escapes them itself."""
        return source if name == "rq_dashboard/jobs.html" else source.replace("<%=", "<%-")


def make_dashboard(settings: Settings) -> Flask:
    """Returns the dashboard as a WSGI app. Raises SettingsError without REDIS_URL or DASHBOARD_PASSWORD.

    Call it once per process: rq-dashboard keeps its set-up in module globals.
    """
    if not settings.dashboard_password:
        raise SettingsError("DASHBOARD_PASSWORD is not set: the dashboard can requeue jobs, so it needs a password.")
    if not settings.redis_url:
        raise SettingsError("REDIS_URL is not set.")
    # Some of its pages fetch jobs without a serializer, which would unpickle data from Redis and so execute it.
    rq.serializers.PickleSerializer = JSONSerializer  # type: ignore[assignment]
    from rq_dashboard import web

    web.config.serializer = JSONSerializer
    app = Flask("rq_dashboard")
    app.config["RQ_DASHBOARD_REDIS_URL"] = settings.redis_url
    app.config["RQ_DASHBOARD_DISABLE_DELETE"] = True
    app.jinja_env.add_extension(EscapedFigures)
    web.setup_rq_connection(app)
    sign_in = SignIn(settings)
    app.before_request(lambda: sign_in.refuse() or _refuse())
    app.after_request(_forbid_frames)
    app.register_blueprint(web.blueprint)
    app.register_error_handler(NoSuchJobError, lambda error: ("This job no longer exists.\n", 404))
    app.register_error_handler(redis.ConnectionError, lambda error: ("Redis does not answer.\n", 503))
    return app


def _refuse() -> Response | None:
    """Returns the response that rejects a request of somebody who has signed in, or None."""
    if request.path.startswith("/requeue") and request.method != "POST":
        # Its pages use POST; a GET link could be planted on any site.
        return Response("Use POST.\n", 405, {"Allow": "POST"})
    if request.method not in ("GET", "HEAD") and not _from_own_page():
        return Response("Requests from other sites are rejected.\n", 403)
    return None


def _from_own_page() -> bool:
    """Whether the headers name this dashboard's own page. Clients other than browsers send no such headers."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None and site not in OWN_SITES:
        return False
    named = [request.headers[name] for name in ("Origin", "Referer") if name in request.headers]
    return all(urlsplit(address).netloc == request.host for address in named)


def _forbid_frames(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = "frame-ancestors 'none'"
    response.headers["X-Frame-Options"] = "DENY"
    return response


def main() -> int:
    """Serve the dashboard on DASHBOARD_HOST and DASHBOARD_PORT until SIGTERM. Returns 2 for invalid settings."""
    exit_with_parent()
    try:
        settings = read_settings()
        configure_logging(settings)
        # Flask types the environ as a plain dict, which the protocol here does not accept.
        flask: Any = make_dashboard(settings)
        app = WSGIMiddleware(flask, workers=THREADS)
    except SettingsError as error:
        print(f"session-relay: {error.message}", file=sys.stderr)
        return 2
    config = uvicorn.Config(
        app,
        host=settings.dashboard_host,
        port=settings.dashboard_port,
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    )
    with contextlib.suppress(KeyboardInterrupt):  # Uvicorn raises it after a graceful shutdown.
        uvicorn.Server(config).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())

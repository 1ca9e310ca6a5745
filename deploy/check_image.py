"""Builds the image and runs every process from it, as production does: `.venv/bin/python deploy/check_image.py`.

Each container is read-only, without capabilities, and as the image's own user. Postgres and Valkey are those of the
local stack, and a webhook passes through relay and worker, then through the single service. Exits with 1 if anything
fails. `--build-arg` is passed on, for example PYTHON_IMAGE for a mirror of the registry.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from local.servers.embedded import start_postgres, start_valkey  # noqa: E402
from local.stack.environment import free_port  # noqa: E402

LIMIT_SECONDS = 60.0
STOP_SECONDS = 60
STOPPED = ("0", "143")
"""The exit codes of a clean stop. A server of uvicorn ends by the signal that it got, once it is done."""
API_KEY = f"srk_{secrets.token_urlsafe(24)}"
CONFINED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--init")
PROCESSES = {
    "relay": ("python", "-m", "api"),
    "worker": ("python", "-m", "worker"),
    "dashboard": ("python", "-m", "worker.dashboard"),
    "single service": ("python", "-m", "local.single_service"),
}


class Failed(Exception):
    """A process of the image does not do what it should."""


def docker(*arguments: str) -> str:
    """Run docker. Returns its output; raises Failed with its errors."""
    done = subprocess.run(("docker", *arguments), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"docker {' '.join(arguments[:3])} …: {done.stderr[-4000:]}")
    return done.stdout.strip()


class Image:
    """The image, with the environment of all containers. They use the network of this machine."""

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        self._name = name
        self._settings = [word for item in environment.items() for word in ("--env", "=".join(item))]

    def run(self, *command: str) -> str:
        """Run a command to its end. Returns its output."""
        return docker("run", "--rm", "--network=host", *CONFINED, *self._settings, self._name, *command)

    @contextmanager
    def running(self, title: str) -> Iterator[str]:
        """Run a process within the block, and stop it as an operator does. Yields the id of its container."""
        container = docker(
            "run", "--detach", "--network=host", *CONFINED, *self._settings, self._name, *PROCESSES[title]
        )
        try:
            yield container
            docker("stop", f"--time={STOP_SECONDS}", container)
            code = docker("inspect", "--format={{.State.ExitCode}}", container)
            if code not in STOPPED:
                raise Failed(f"The {title} ended with exit code {code}.")
        except Failed:
            print(subprocess.run(("docker", "logs", container), capture_output=True, text=True, check=False).stderr)
            raise
        finally:
            docker("rm", "--force", container)
        print(f"{title}: runs read-only and stops cleanly")


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, str]:
    """Send a request to this machine. Returns the status, 0 without an answer, and the body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_SECONDS)
    headers = {"X-API-Key": API_KEY, "Content-Type": "application/json"}
    try:
        connection.request(method, path, json.dumps(body) if body else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError:
        return 0, ""
    finally:
        connection.close()


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until the condition holds. Raises Failed after LIMIT_SECONDS."""
    limit_at = time.monotonic() + LIMIT_SECONDS
    while not condition():
        if time.monotonic() > limit_at:
            raise Failed(f"Timed out: {what}.")
        time.sleep(0.2)


def send(port: int, session_id: str) -> None:
    """Create a session and wait until the worker has applied it."""
    body = {"command": "create_session", "session_id": session_id, "data": {"title": "From a container"}}
    status, answer = ask(port, "POST", "/v1/webhook?wait=30", body)
    if status != http.client.OK:
        raise Failed(f"The webhook was answered {status}: {answer}")
    print(f"webhook: applied, {json.loads(answer)['message']}")


def is_healthy(container: str) -> bool:
    """Return whether the health check of docker-compose.yml accepts the worker in a container."""
    done = subprocess.run(("docker", "exec", container, "python", "-m", "worker.health"), check=False)
    return done.returncode == 0


def check(name: str) -> None:
    """Run all processes. Raises Failed."""
    size = int(docker("image", "inspect", "--format={{.Size}}", name))
    user = docker("image", "inspect", "--format={{.Config.User}}", name)
    if user in ("", "root", "0"):
        raise Failed("The image runs as root.")
    print(f"image: {size / 1e6:,.0f} MB, user {user}")
    with ExitStack() as held:
        folder = held.enter_context(tempfile.TemporaryDirectory(prefix="session-relay-image-"))
        Path(folder).chmod(0o755)  # Postgres runs as another user when this runs as root.
        ports = {name: free_port("127.0.0.1", 0, variable="PORT") for name in ("postgres", "valkey", "relay", "board")}
        os.environ["PGPORT"] = str(ports["postgres"])  # Also of the socket by which the start is watched.
        tcp = {"listen_addresses": "127.0.0.1", "port": str(ports["postgres"])}
        held.callback(start_postgres(Path(folder, "postgres"), settings=tcp).stop)
        tcp = {"bind": "127.0.0.1", "port": str(ports["valkey"])}
        held.callback(start_valkey(Path(folder, "valkey"), settings=tcp).stop)
        image = Image(
            name,
            {
                "DATABASE_URL": f"postgresql://postgres@127.0.0.1:{ports['postgres']}/postgres",
                "REDIS_URL": f"redis://127.0.0.1:{ports['valkey']}/0",
                "API_KEY": API_KEY,
                "PORT": str(ports["relay"]),
                "DASHBOARD_PORT": str(ports["board"]),
                "DASHBOARD_PASSWORD": secrets.token_urlsafe(12),
                "HEALTH_DIR": "/tmp/health",  # noqa: S108 - inside the container
            },
        )
        image.run("python", "-m", "alembic", "upgrade", "head")
        print("migrate: done")
        with image.running("worker") as worker, image.running("relay"), image.running("dashboard"):
            wait_for(lambda: ask(ports["relay"], "GET", "/readyz")[0] == http.client.OK, "the relay is ready")
            wait_for(lambda: is_healthy(worker), "the worker is healthy")
            wait_for(lambda: ask(ports["board"], "GET", "/")[0] == http.client.UNAUTHORIZED, "the dashboard asks")
            send(ports["relay"], "image")
            image.run("python", "-m", "local.keys", "create", "phone")
            print("keys: created one")
        with image.running("single service"):
            wait_for(lambda: ask(ports["relay"], "GET", "/readyz")[0] == http.client.OK, "the service is ready")
            send(ports["relay"], "image-2")


def main(arguments: Sequence[str] | None = None) -> int:
    """Build and check. Returns 1 if anything fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--network", default="default", help="network of the build, such as host")
    asked = parser.parse_args(arguments)
    name = "session-relay:check"
    options = [f"--build-arg={value}" for value in asked.build_arg]
    try:
        built = subprocess.run(
            ("docker", "build", f"--tag={name}", f"--network={asked.network}", *options, str(ROOT)), check=False
        )
        if built.returncode != 0:
            raise Failed("The image cannot be built.")
        check(name)
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

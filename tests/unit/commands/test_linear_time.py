"""Foreign input is read in one pass: eight times the input takes about eight times as long, not 64 times."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from starlette.datastructures import Headers, QueryParams

from agent.execution.task_results import plain, read_percent
from api.oauth.clients import clean_name
from api.operations.api_keys import KeyRequest
from api.tasks.agents import AgentRequest
from api.tasks.claims import ClaimRequest, CompleteRequest, HeartbeatRequest
from cli.doctor.mcp_config import _Expansion
from cli.output.pager import Paged
from local.stack.environment import read_env_file
from models.commands.definitions import Search
from models.commands.payloads import parse_envelope, parse_flat
from models.decoding.strict import decode_as, decode_json
from models.errors import RelayError
from models.process.url_redaction import mask_path
from relay.http.bodies import FORM
from relay.http.query_parameters import NoParameters, decode_parameters
from relay.ingest.signed_bodies import parse_signed
from relay.ingest.token_webhooks import parse_hook, read_event
from sessions.documents.import_validation import read_document
from sessions.search.words import fold, split_words
from tests.support.inputs.hostile import BODIES, require_linear
from tests.support.stores.world import World

SIZE = 5_000


def decode_both(shape: type[object], body: bytes) -> None:
    decode_json(body)
    decode_as(body, shape)


READERS: dict[str, Callable[[bytes], object]] = {
    "webhook": parse_envelope,
    "signed webhook": lambda body: parse_signed(body, event="repository_dispatch"),
    "hook": lambda body: parse_hook(read_event(body, headers=Headers()), session_id="s", name="railway"),
    "form": lambda body: read_event(body, headers=Headers({"Content-Type": FORM})),
    "import": lambda body: read_document(io.BytesIO(body)),
    **{name: partial(parse_flat, name) for name in ("store_memory", "batch", "search")},
    **{
        shape.__name__: partial(decode_both, shape)
        for shape in (AgentRequest, ClaimRequest, CompleteRequest, HeartbeatRequest, KeyRequest)
    },
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", BODIES)
def test_a_body_is_read_in_linear_time(reader: str, kind: str) -> None:
    def read(body: bytes) -> None:
        with suppress(RelayError):
            READERS[reader](body)

    bodies = {size: BODIES[kind](size) for size in (SIZE, 8 * SIZE)}
    require_linear(lambda size: read(bodies[size]), SIZE)


@pytest.mark.parametrize("kind", BODIES)
def test_an_error_does_not_repeat_a_long_body(kind: str) -> None:
    body = BODIES[kind](SIZE)
    for name, read in READERS.items():
        try:
            read(body)
        except RelayError as error:
            assert len(str(error.body())) < 3_000, name


QUERIES: dict[str, Callable[[int], str]] = {
    "many names": lambda count: "&".join(f"p{number}=1" for number in range(count)),
    "one name": lambda count: "&".join("q=1" for _ in range(count)),
    "one long list": lambda count: "tags=" + "a," * count,
    "names without values": lambda count: "&".join(f"p{number}" for number in range(count)),
}


@pytest.mark.parametrize("kind", QUERIES)
@pytest.mark.parametrize("shape", [Search, NoParameters])
def test_parameters_are_read_in_linear_time(kind: str, shape: type[Search] | type[NoParameters]) -> None:
    queries = {count: QueryParams(QUERIES[kind](count)) for count in (1_000, 8_000)}

    def read(count: int) -> None:
        with suppress(RelayError):
            decode_parameters(queries[count], shape)

    require_linear(read, 1_000)


ACCENTS = "\u0301\u0323"
TEXTS: dict[str, tuple[Callable[[str], object], str]] = {
    "a path with many tokens": (mask_path, "/hooks/complete/"),
    "a path of percent signs": (mask_path, "%2525"),
    "an app's name": (clean_name, ACCENTS),
    "a text to search": (fold, ACCENTS),
    "words of a text": (lambda text: list(split_words(text)), ACCENTS),
    "an identifier to search": (lambda text: list(split_words(text)), "aB-"),
    "numbers to search": (lambda text: list(split_words(text)), "1 "),
    "output of blank lines": (read_percent, "\n"),
    "output of digits": (read_percent, "1"),
    "output of escapes": (lambda text: plain(text.encode()), "\x1b["),
    "a variable that is not ended": (_Expansion({}).text, "${A:-"),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_are_read_in_linear_time(kind: str) -> None:
    read, part = TEXTS[kind]
    require_linear(lambda size: read("a" + part * (size // len(part))), SIZE)


@pytest.mark.parametrize("line", [" " * 100, " \x1b[1m" * 20, "\x1b[" + "1" * 100, "x" * 100])
def test_pages_are_written_in_linear_time(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    paged = Paged({}, enabled=False)
    require_linear(lambda count: (paged.write(line * count + "|\n"), capsys.readouterr()), 300)


def test_an_env_file_is_read_in_linear_time(tmp_path: Path) -> None:
    path = tmp_path / ".env"

    def read(size: int) -> None:
        path.write_text("export " + " " * size + "A" + " " * size + "=" + " " * size + "x" + " " * size + "y")
        assert read_env_file(path)["A"][0] == "x"

    require_linear(read, SIZE)


def test_tasks_that_depend_on_each_other_take_linear_time() -> None:
    def delegate(count: int) -> None:
        world = World()
        world.do("create_session", title="Morning walk")
        world.upcoming = frozenset(f"t{number}" for number in range(count))
        for number in range(count):
            needed = [f"t{other}" for other in range(max(number - 100, 0), number)]
            world.do("delegate_task", task_id=f"t{number}", description=f"{number}", depends_on=needed)

    require_linear(delegate, 60)

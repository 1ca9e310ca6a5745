"""The documents can be followed: their JSON, their links, and the guide for LLMs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from starlette.requests import Request

from api.openapi.llm_instructions import FILES, MOST_CHARACTERS, Tier
from api.public_url import public_url_of
from docs.error_codes import served_codes, tool_codes
from docs.error_texts import SERVED, TOOLS
from docs.make_reference import PAGE, make_page
from models import field_types as v
from models.commands.definitions import COMMANDS
from models.commands.field_docs import MEANINGS, SHARED_MEANINGS, describe_field
from models.commands.payloads import parse_envelope, parse_flat
from models.errors import BadRequest
from models.field_types import MAX_WAIT_SECONDS
from tests.support.inputs.documents import DOCUMENTS, anchors, blocks, commands_of, is_webhook, links, name_of
from tests.support.project import ROOT

LONGEST_URL = "https://session-relay-production-1234.up.some-platform.example.com:65535"
GUIDE = (ROOT / "api" / "openapi" / FILES["full"]).read_text()
ANY_DOCUMENT = pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)


@ANY_DOCUMENT
def test_every_link_resolves(path: Path) -> None:
    dead = []
    for link in links(path.read_text()):
        if link.startswith(("https://", "http://")):
            found = bool(re.fullmatch(r"https?://[a-z0-9.-]+\.[a-z]{2,}(/[^\s]*)?", link))
        else:
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            found = target.exists() and (not anchor or anchor in anchors(target.read_text()))
        if not found:
            dead.append(link)
    assert not dead, f"{name_of(path)} has broken links: {', '.join(dead)}"


@ANY_DOCUMENT
def test_every_json_block_is_valid_and_every_webhook_can_be_parsed(path: Path) -> None:
    for block in blocks(path.read_text()):
        if block.language == "json" and is_webhook(json.loads(block.text)):
            parse_envelope(block.text.encode())


@ANY_DOCUMENT
def test_every_body_of_a_curl_line_is_json(path: Path) -> None:
    for block in blocks(path.read_text()):
        for command in commands_of(block):
            for body in re.findall(r"-d '([^']*)'", command):
                json.loads(body)


# The guide


@pytest.mark.parametrize("tier", FILES)
def test_the_guide_is_short_enough_even_with_a_long_url(tier: Tier) -> None:
    text = (ROOT / "api" / "openapi" / FILES[tier]).read_text()
    assert "{relay}" in text
    assert len(text.replace("{relay}", LONGEST_URL)) <= MOST_CHARACTERS[tier]


def test_every_line_of_the_guide_is_a_command() -> None:
    lines = re.findall(r"^(\w+) (\{.*\})$", GUIDE, re.MULTILINE)
    assert len(lines) >= 10
    for name, body in lines:
        parse_flat(name, body.encode())


def test_the_guide_names_every_command_that_can_be_undone() -> None:
    named = {name for name, _ in told_commands(GUIDE)}
    assert set(COMMANDS) - named == {"delete_session", "delete_memory", "list_memories"}


def told_commands(text: str) -> list[tuple[str, str]]:
    """Return each command that a guide lists, and its fields."""
    said = re.findall(rf"^- ({'|'.join(COMMANDS)})\b(.*?)(?=→|\n(?!  ))", text, re.MULTILINE | re.DOTALL)
    assert len(said) > 12
    return said


@pytest.mark.parametrize("tier", FILES)
def test_the_guide_names_each_required_field_and_no_unknown_one(tier: Tier) -> None:
    for name, fields in told_commands((ROOT / "api" / "openapi" / FILES[tier]).read_text()):
        known = {field.encode_name: field for field in msgspec.structs.fields(COMMANDS[name])}
        names = set(re.findall(r"[a-z_]+\??", re.sub(r"\([^)]*\)", "", fields)))
        assert {field.rstrip("?") for field in names} <= {*known, "session_id"}, name
        assert {field for field, definition in known.items() if definition.required} == {
            field for field in names if not field.endswith("?") and name != "create_session"
        }, name


@pytest.mark.parametrize("tier", FILES)
def test_the_guide_states_the_maximum_wait(tier: Tier) -> None:
    text = (ROOT / "api" / "openapi" / FILES[tier]).read_text()
    assert f"{MAX_WAIT_SECONDS}" in text


# The relay's own URL


def request_to(*hosts: str, scheme: str = "http", forwarded: str | None = None) -> Request:
    headers = [(b"host", host.encode("latin-1")) for host in hosts]
    headers += [(b"x-forwarded-proto", forwarded.encode())] if forwarded is not None else []
    return Request({"type": "http", "scheme": scheme, "path": "/", "headers": headers})


@pytest.mark.parametrize(
    "host",
    ["relay.example", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "[2001:db8::1]", "my_relay", "RELAY.Example:1"],
)
def test_a_document_contains_the_host_of_the_request(host: str) -> None:
    assert public_url_of(request_to(host), public_url="") == f"http://{host}"


@pytest.mark.parametrize(
    "host",
    [
        *(
            "",
            " ",
            "a b",
            "a\nb",
            "a/b",
            "a?b",
            "a#b",
            "a@b",
            "a:b",
            "a:123456",
            'a"b',
            "a'b",
            "<b>",
            "a`b`",
            "-a",
            "a.",
        ),
        *(
            "{relay}",
            "a,b",
            "a;b",
            "a%20b",
            "[a]",
            "[::1",
            "::1",
            "ä.example",
            "a" * 300,
            "a\\b",
            "$(a)",
            "**a**",
            "a\n",
        ),
    ],
)
def test_an_invalid_host_appears_in_no_document(host: str) -> None:
    with pytest.raises(BadRequest):
        public_url_of(request_to(host), public_url="")


@pytest.mark.parametrize("hosts", [(), ("a.example", "b.example")])
def test_there_must_be_exactly_one_host_header(hosts: tuple[str, ...]) -> None:
    with pytest.raises(BadRequest):
        public_url_of(request_to(*hosts), public_url="")


@pytest.mark.parametrize(
    ("scheme", "forwarded", "told"),
    [
        ("http", "https", "https"),
        ("http", "HTTPS, http", "https"),
        ("http", "http", "http"),
        ("http", "javascript", "http"),
        ("https", "http", "https"),
        ("https", None, "https"),
    ],
)
def test_a_proxy_header_can_only_upgrade_the_scheme_to_https(scheme: str, forwarded: str | None, told: str) -> None:
    request = request_to("a.example", scheme=scheme, forwarded=forwarded)
    assert public_url_of(request, public_url="") == f"{told}://a.example"


def test_a_configured_public_url_takes_precedence() -> None:
    request = request_to("evil example", forwarded="http")
    assert public_url_of(request, public_url="https://relay.example/") == "https://relay.example"


# The reference


def test_the_reference_is_up_to_date() -> None:
    text = PAGE.read_text()
    assert make_page(text) == text, "It is stale: run `python -m docs.make_reference`."


def test_the_reference_lists_exactly_the_existing_errors() -> None:
    assert set(SERVED) == set(served_codes())
    assert set(TOOLS) == tool_codes()


def test_errors_of_the_examples_are_listed_with_their_status() -> None:
    for case in json.loads((ROOT / "examples" / "error_examples.json").read_text()):
        expected = case["expected"]
        assert expected["http_status"] in [found.status for found in served_codes()[expected["code"]]]


def test_the_reference_has_every_section_and_value_of_the_data_models() -> None:
    text = PAGE.read_text()
    models = text.partition("\n## Data models")[2].partition("\n## ")[0]
    for values in (v.SessionStatus, v.MemoryType, v.MemoryStatus, v.ChunkFormat, v.TaskStatus):
        assert [value for value in get_args(values) if f"`{value}`" not in models] == []
    for kind in get_args(v.MemoryType):
        assert f"\n| `{kind}` |" in models


# Meanings of fields


def test_every_field_of_every_command_is_documented_and_no_other() -> None:
    used: set[str] = set()
    for name, definition in COMMANDS.items():
        own = MEANINGS.get(definition.__name__, {})
        fields = [field.encode_name for field in msgspec.structs.fields(definition)]
        assert set(own) <= set(fields), name
        assert all(describe_field(definition, field).endswith(".") for field in [*fields, "id"])
        assert definition.session == "none" or describe_field(definition, "session_id")
        used |= {field for field in fields if field not in own}
    assert used == set(SHARED_MEANINGS)
    assert set(MEANINGS) <= {definition.__name__ for definition in COMMANDS.values()}

"""The examples are complete, can be parsed, and agree with examples/README.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from examples.expected import STEPS, Get
from models.commands.definitions import COMMANDS, name_of
from models.commands.payloads import parse_envelope
from models.commands.strict_payloads import ENVELOPE_TYPE
from tests.support.project import ROOT

EXAMPLES = ROOT / "examples"
FILES = sorted(path for path in EXAMPLES.glob("*.json") if path.name != "error_examples.json")
CASES: list[dict[str, Any]] = json.loads((EXAMPLES / "error_examples.json").read_text())
README = (EXAMPLES / "README.md").read_text()
SECTIONS = dict(re.findall(r"^### (\S+)\n(.*?)(?=^##)", README, re.DOTALL | re.MULTILINE))
PROMISED = {
    *("create_session", "conversation_batch", "store_memory_idea", "store_memory_decision", "store_memory_question"),
    *("delegate_task_code", "delegate_task_research", "add_artifact_code", "add_artifact_document"),
    *("batch_workflow", "complete_workflow", "error_examples"),
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_each_example_is_a_command_for_an_example_session(path: Path) -> None:
    submission = parse_envelope(path.read_bytes())
    assert json.loads(path.read_bytes())["type"] == ENVELOPE_TYPE
    assert submission.session_id is None or submission.session_id.startswith("example-")
    assert submission.sync == submission.command.is_read


def test_every_command_has_an_example_and_the_promised_files_exist() -> None:
    shown = {name_of(parse_envelope(path.read_bytes()).command) for path in FILES}
    assert shown == set(COMMANDS)
    assert {path.stem for path in EXAMPLES.glob("*.json")} >= PROMISED


def test_every_example_is_sent_and_checked() -> None:
    sent = [step.example for step in STEPS if not isinstance(step, Get)]
    assert sorted(sent) == [path.stem for path in FILES]


def test_the_readme_has_a_section_for_every_example_in_working_order() -> None:
    assert list(SECTIONS) == [f"{step.example}.json" for step in STEPS if not isinstance(step, Get)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_readme_gives_the_curl_command_and_explains_each_field(path: Path) -> None:
    section = SECTIONS[path.name]
    assert f"-d @examples/{path.name}\n```" in section
    payload = json.loads(path.read_bytes())
    around = README.partition("## Around the data")[2].partition("## The examples")[0]
    assert [field for field in payload if f"| `{field}` |" not in around] == []
    explained = set(re.findall(r"^\| (?:\w+ )?`(\w+)` \|", section, re.MULTILINE))
    used = set(payload["data"])
    for item in payload["data"].get("commands", []):
        used |= set(item.get("data", {}))
    assert explained == used


def test_every_file_named_in_the_readme_exists() -> None:
    for name in re.findall(r"[\w/]+\.(?:json|sh|py)\b", README):
        # This is the name of an artifact.
        assert name == "yield_estimate.py" or (EXAMPLES / name).exists() or (ROOT / name).exists(), name


def test_every_json_block_of_the_readme_is_an_example() -> None:
    contents = [json.loads(path.read_bytes()) for path in FILES]
    for block in re.findall(r"```json\n(.*?)```", README, re.DOTALL):
        assert json.loads(block) in contents


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_each_error_example_is_explained_and_listed_in_the_readme(case: dict[str, Any]) -> None:
    assert set(case) <= {"name", "why", "payload", "body", "before", "without_key", "expected"}
    assert ("payload" in case) != ("body" in case)
    expected = case["expected"]
    assert 400 <= expected["http_status"] < 500
    field = f"`{expected['field']}`" if "field" in expected else ""
    row = f"| {case['name']} | {expected['http_status']} | `{expected['code']}` | {field} | {case['why']} |"
    assert row in README.splitlines()
    for payload in case.get("before", []):
        parse_envelope(json.dumps(payload).encode())


def test_the_readme_lists_no_other_errors() -> None:
    assert len(re.findall(r"^\| .* \| 4\d\d \|", README, re.MULTILINE)) == len(CASES)

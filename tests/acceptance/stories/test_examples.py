"""examples/test_all.sh, and the commands of examples/README.md, against the running stack, as a person runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest

from tests.support.processes.stack import Stack
from tests.support.project import IS_LONG, ROOT

LIMIT_SECONDS = 240


def run_all(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(ROOT / "examples" / "test_all.sh"), *options],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_SECONDS,
    )


def require_success(run: subprocess.CompletedProcess[str]) -> None:
    """Fail unless the run reports that every response is correct."""
    assert run.returncode == 0, run.stdout + run.stderr
    lines = run.stdout.splitlines()
    assert lines[-1] == f"All {len(lines) - 1} responses are correct."
    assert all(line.startswith("ok ") for line in lines[:-1])
    assert "WRONG" not in run.stdout


@pytest.fixture(scope="module")
def sent_by_hand(stack: Stack) -> subprocess.CompletedProcess[str]:
    """The run after some examples were sent by hand, in another order, and a memory that is in none of them."""
    for name in ("batch_workflow", "complete_session", "create_session"):
        body = (ROOT / "examples" / f"{name}.json").read_bytes()
        assert stack.client.post("/v1/webhook?wait=30", content=body).json()["status"] == "success"
    stack.send("store_memory", "example-solar-roof", key="one-more", content="It is in no example.")
    return run_all(RELAY_URL=stack.url, API_KEY=stack.api_key)


@pytest.fixture(scope="module")
def afresh(stack: Stack, sent_by_hand: object) -> subprocess.CompletedProcess[str]:
    """The run that first deletes what was sent by hand."""
    return run_all("--fresh", RELAY_URL=stack.url, API_KEY=stack.api_key)


@pytest.fixture(scope="module")
def stored(stack: Stack, afresh: subprocess.CompletedProcess[str]) -> Stack:
    """The stack, with all examples sent in order."""
    require_success(afresh)
    return stack


def test_examples_that_were_sent_by_hand_are_named_as_the_reason(
    sent_by_hand: subprocess.CompletedProcess[str], afresh: subprocess.CompletedProcess[str]
) -> None:
    assert sent_by_hand.returncode == 1
    assert "WRONG  batch_workflow.json" in sent_by_hand.stdout
    *_, reason, remedy = sent_by_hand.stdout.rstrip().rsplit("\n\n", 1)[1].partition("begin afresh: ")
    existed = sent_by_hand.stdout.rpartition("These sessions existed before: ")[2].splitlines()[0]
    assert "example-weekend-trip" in existed
    assert (reason, remedy) == ("begin afresh: ", "examples/test_all.sh --fresh")
    require_success(afresh)


def test_all_examples_pass_again_against_the_same_data(stored: Stack) -> None:
    require_success(run_all(RELAY_URL=stored.url, API_KEY=stored.api_key))


def test_a_wrong_key_is_reported(stack: Stack) -> None:
    run = run_all(RELAY_URL=stack.url + "/", API_KEY="not-the-key")
    assert run.returncode == 1
    assert "WRONG  create_session.json" in run.stdout
    assert "unknown_key" in run.stdout


def test_a_different_stored_state_is_reported(sent_by_hand: subprocess.CompletedProcess[str]) -> None:
    assert sent_by_hand.returncode == 1
    assert "WRONG  get_session_summary.json" in sent_by_hand.stdout.splitlines()
    assert "data.stats.memories: expected 10, got 11" in sent_by_hand.stdout


def test_an_unknown_option_is_refused() -> None:
    run = run_all("--fersh", RELAY_URL="http://127.0.0.1:1", API_KEY="key")
    assert (run.returncode, run.stderr) == (2, "Usage: examples/test_all.sh [--fresh]\n")


@pytest.mark.parametrize("missing", ["RELAY_URL", "API_KEY"])
def test_a_missing_setting_is_named(missing: str) -> None:
    given = {"RELAY_URL": "http://127.0.0.1:1", "API_KEY": "key"}
    del given[missing]
    run = run_all(**given)
    assert run.returncode != 0
    assert f"{missing}: is not set." in run.stderr


def test_an_unreachable_relay_is_named() -> None:
    run = run_all(RELAY_URL="http://127.0.0.1:1", API_KEY="key")
    assert run.returncode == 1
    assert run.stdout.startswith("Only 0 of ")
    assert "No answer from http://127.0.0.1:1." in run.stderr


def test_the_curl_commands_of_the_readme_work_again(stored: Stack) -> None:
    readme = (ROOT / "examples" / "README.md").read_text()
    commands = re.findall(r"^```sh\n(curl .*?)^```", readme, re.DOTALL | re.MULTILINE)
    assert len(commands) > 25
    environment = {"PATH": os.environ["PATH"], "RELAY_URL": stored.url, "API_KEY": stored.api_key}
    for command in commands * (2 if IS_LONG else 1):  # The examples were sent before.
        run = subprocess.run(
            ["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, check=True, timeout=60
        )
        answer = json.loads(run.stdout)
        refused = answer.get("error", {}).get("code")
        assert (answer["status"], refused) == (
            ("error", "task_not_asking") if "answer_task" in command else ("success", None)
        ), answer

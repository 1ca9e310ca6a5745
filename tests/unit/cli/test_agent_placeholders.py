"""Placeholders in an agent's command: their values, and the positions where a task must not supply any."""

from __future__ import annotations

import pytest

from agent.execution.placeholders import NAMES, Template
from models.errors import Invalid, SettingsError

VALUES = dict.fromkeys(NAMES, "") | {"task_id": "t1", "description": "Find {task_id}; rm -rf $HOME", "attempt": "2"}
VALUES["artifact_dir"] = "/tmp/a"


@pytest.mark.parametrize(
    ("words", "filled"),
    [
        (["say", "{description}"], ["say", "Find {task_id}; rm -rf $HOME"]),
        (["say", "--text={description}!", "{task_id}-{attempt}"], ["say", f"--text={VALUES['description']}!", "t1-2"]),
        (["say", "{{task_id}}", '{"a": {}}', "{ task_id }"], ["say", "{task_id}", '{"a": {}}', "{ task_id }"]),
        (["say", "{session_title}"], ["say", ""]),
        (["x", "-o{artifact_dir}", "{{a}}"], ["x", "-o/tmp/a", "{a}"]),
    ],
)
def test_each_word_stays_one_word_and_is_substituted_once(words: list[str], filled: list[str]) -> None:
    assert Template(words).fill(VALUES) == filled


@pytest.mark.parametrize("value", ["-x", "--yolo", "-", "--"])
def test_a_value_cannot_be_an_option(value: str) -> None:
    values = VALUES | {"description": value}
    for words in (
        ["claude", "-p", "{description}"],
        ["x", "{description}{task_id}"],
        ["x", "{session_title}{description}"],
    ):
        with pytest.raises(Invalid) as refused:
            Template(words).fill(values)
        assert refused.value.code == "looks_like_an_option"
    assert Template(["x", "--prompt={description}"]).fill(values)[1] == f"--prompt={value}"
    assert Template(["x", "say {description}"]).fill(values)[1] == f"say {value}"
    assert Template(["x", "--", "{description}"]).fill(values)[2] == value
    assert Template(["x", "--", "{task_id}", "{description}"]).fill(values)[3] == value
    with pytest.raises(Invalid):
        Template(["x", "{description}", "--"]).fill(values)


def test_a_null_character_is_refused() -> None:
    with pytest.raises(Invalid, match="null"):
        Template(["x", "{description}"]).fill(VALUES | {"description": "a\0b"})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["say", "{descripton}"], "Unknown placeholder {descripton}"),
        (["{description}"], "choose the program"),
        (["sh", "-c", "echo {description}"], "after 'sh' .* a shell"),
        (["sh", "-c", 'echo "$1"', "sh", "{description}"], "shell"),
        (["x", "--{description}=y"], "choose an option"),
        (["x", "-p{description}"], "choose an option"),
        (["bash"], "'bash' has no script"),
        (["/bin/bash", "-lc", "echo {description}"], "shell"),
        (["env", "A=b", "dash", "-c", "echo {description}"], "shell"),
        (["su", "nobody", "-c", "claude -p {description}"], "shell"),
        (["su", "nobody", "--command=claude -p {description}"], "shell"),
        (["ssh", "host", "claude", "-p", "{description}"], "shell"),
    ],
)
def test_placeholders_where_a_task_could_inject_code_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Template(words)

"""Command templates with placeholders such as `{description}`, which are filled with a task's values.

The command runs without a shell: each word remains one word. A task's values cannot become options.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from agent.execution.shell_guard import find_interpreter, reads_script
from models.commands.responses import shorten
from models.errors import Invalid, SettingsError

NAMES = (
    *("task_id", "session_id", "session_title", "task_type", "title", "description", "input_data", "created_by"),
    "attempt",
    *("artifact_dir", "result_file", "question_file"),
)
"""All placeholders. The environment has the same values under SESSION_RELAY_ and the name in capitals."""
OWN = frozenset({"artifact_dir", "result_file", "question_file"})
"""Paths chosen by the runner. All other values come from the delegator and are untrusted."""

SHOWN_LENGTH = 80
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}|\{(\w+)\}", re.ASCII)


class Template:
    """A command with placeholders. `{{name}}` is an escaped `{name}`."""

    def __init__(self, words: Sequence[str]) -> None:
        """Raises SettingsError for an unknown placeholder, and for one that would give a task control: as the program,
        after anything that can run a shell or code, and in the name of an option."""
        self._words = tuple(words)
        for word in words:
            unknown = [name for name in _names(word) if name not in NAMES]
            if unknown:
                raise SettingsError(
                    f"Unknown placeholder {{{unknown[0]}}}.",
                    expected="one of: " + ", ".join(f"{{{name}}}" for name in NAMES),
                    hint=f"Write {{{{{unknown[0]}}}}} for the literal text.",
                )
        if _names(words[0]):
            raise SettingsError(
                "The first word must not contain a placeholder: a task must not choose the program to run."
            )
        if found := find_interpreter(words, is_free=lambda word: bool(_names(word))):
            raise SettingsError(
                f"A placeholder after {shorten(found, SHOWN_LENGTH)!r} would let the task run anything, since that can"
                " run a shell, code or another program.",
                hint="The task is also in environment variables and on standard input: have a script read"
                ' "$SESSION_RELAY_DESCRIPTION", with the quotation marks. Or write an executable file that begins with'
                " #!, and use it as the program: ./agent.sh {description}.",
            )
        if reads_script(words):
            raise SettingsError(
                f"{words[-1]!r} has no script, so it would run the task, its standard input, as one.",
                hint="Add a script, or use -c.",
            )
        for word in words:
            if _names_option(word):
                raise SettingsError(
                    f"The placeholder in {shorten(word, SHOWN_LENGTH)!r} would let the task choose an option.",
                    hint="Put it after an equals sign, as in --prompt={description}, or make it a separate word.",
                )

    def fill(self, values: Mapping[str, str]) -> list[str]:
        """Fill in these values. Raises Invalid if one would be taken for an option: it begins with `-` at the start of
        a word, and no `--` directly precedes it. An earlier `--` may belong to another program, as in
        `timeout 9 -- claude -p {description}`."""
        filled: list[str] = []
        may_be_option = True
        for word in self._words:
            text = _PLACEHOLDER.sub(lambda found: f"{{{found[1]}}}" if found[1] else values[found[2]], word)
            first = _PLACEHOLDER.match(word)
            is_value = bool(first and first[2])
            may_be_option = word != "--" if not is_value else may_be_option
            if may_be_option and first and is_value and text.startswith("-"):
                raise Invalid(
                    f"The {first[2].replace('_', ' ')} begins with -, so the agent's command would take it for an"
                    " option.",
                    code="looks_like_an_option",
                    field=first[2],
                    hint="Start it with another character.",
                )
            if "\0" in text:
                raise Invalid(f"The word {word!r} of the command would contain a null character.", field="description")
            filled.append(text)
        return filled


def _names_option(word: str) -> bool:
    """Return whether a task's value is part of an option's name. The runner's own paths are harmless there."""
    found = next((found for found in _PLACEHOLDER.finditer(word) if found[2]), None)
    if found is None or not word.startswith("-") or set(_names(word)) <= OWN:
        return False
    return "=" not in word[: found.start()]


def _names(word: str) -> list[str]:
    return [found[2] for found in _PLACEHOLDER.finditer(word) if found[2]]

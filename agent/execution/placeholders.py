"""The command of an agent with placeholders such as `{description}`, and what stands for them with a given task.

No shell is ever between: each word of the command stays one word. What a task says is not taken for an option.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from agent.execution.shell_guard import find_interpreter, reads_script
from models.commands.responses import shorten
from models.errors import Invalid, SettingsError

NAMES = (
    *("task_id", "session_id", "session_title", "task_type", "description", "input_data", "created_by", "attempt"),
    *("artifact_dir", "result_file", "question_file"),
)
"""What there is of each task; in the environment as SESSION_RELAY_ and the name in capitals."""
OWN = frozenset({"artifact_dir", "result_file", "question_file"})
"""Paths that the runner chooses; all else comes from whoever delegates."""

SHOWN_LENGTH = 80
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}|\{(\w+)\}", re.ASCII)


class Template:
    """A command with placeholders in it; `{{name}}` stands for `{name}` itself."""

    def __init__(self, words: Sequence[str]) -> None:
        """Raises SettingsError for an unknown placeholder, and for one where a task must have no say: as the program,
        after anything that can run a shell or code, and in the name of an option."""
        self._words = tuple(words)
        for word in words:
            unknown = [name for name in _names(word) if name not in NAMES]
            if unknown:
                raise SettingsError(
                    f"There is no placeholder {{{unknown[0]}}}.",
                    expected="one of: " + ", ".join(f"{{{name}}}" for name in NAMES),
                    hint=f"Write {{{{{unknown[0]}}}}} for the text itself.",
                )
        if _names(words[0]):
            raise SettingsError("A task cannot say which program is run: the first word must have no placeholder.")
        if found := find_interpreter(words, is_free=lambda word: bool(_names(word))):
            raise SettingsError(
                f"A placeholder after {shorten(found, SHOWN_LENGTH)!r} would let the task run anything, as that can run"
                " a shell, code or another program.",
                hint="The task is in variables and on standard input: let a script read"
                ' "$SESSION_RELAY_DESCRIPTION", in quotation marks. Or make it an executable file that begins with #!,'
                " and name that as the program: ./agent.sh {description}.",
            )
        if reads_script(words):
            raise SettingsError(
                f"{words[-1]!r} has no script, so it would take the task for one: that is its standard input.",
                hint="Name a script, or use -c.",
            )
        for word in words:
            if _names_option(word):
                raise SettingsError(
                    f"The placeholder in {shorten(word, SHOWN_LENGTH)!r} would let the task choose an option.",
                    hint="Put it behind an equals sign, as in --prompt={description}, or make it a word of its own.",
                )

    def fill(self, values: Mapping[str, str]) -> list[str]:
        """The command with these values. Raises Invalid if one would be taken for an option, as it begins with `-`
        and stands where options can stand: at the beginning of a word, unless a `--` stands right before it. One that
        stands farther before may be another program's, as in `timeout 9 -- claude -p {description}`."""
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
                    hint="Let it begin with another character.",
                )
            if "\0" in text:
                raise Invalid(f"The word {word!r} of the command would have a null character.", field="description")
            filled.append(text)
        return filled


def _names_option(word: str) -> bool:
    """Whether a task has a say in the name of an option. Paths of the runner's own make no other option of it."""
    found = next((found for found in _PLACEHOLDER.finditer(word) if found[2]), None)
    if found is None or not word.startswith("-") or set(_names(word)) <= OWN:
        return False
    return "=" not in word[: found.start()]


def _names(word: str) -> list[str]:
    return [found[2] for found in _PLACEHOLDER.finditer(word) if found[2]]

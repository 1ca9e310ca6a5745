"""The command of an agent with placeholders such as `{description}`, and what stands for them with a given task.

No shell is ever between: each word of the command stays one word. What a task says is not taken for an option.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import PurePath

from models.errors import Invalid, SettingsError

NAMES = (
    *("task_id", "session_id", "session_title", "task_type", "description", "input_data", "created_by", "attempt"),
    *("artifact_dir", "result_file", "question_file"),
)
"""What there is of each task; in the environment as SESSION_RELAY_ and the name in capitals."""
SHELLS = frozenset(
    {"sh", "bash", "dash", "zsh", "ksh", "mksh", "ash", "fish", "csh", "tcsh", "busybox", "su", "runuser", "script"}
)
"""What takes a word as a script, after the option -c."""

_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}|\{(\w+)\}", re.ASCII)
_SCRIPT_OPTION = re.compile(r"-[A-Za-z]*c|--command")


class Template:
    """A command with placeholders in it; `{{name}}` stands for `{name}` itself."""

    def __init__(self, words: Sequence[str]) -> None:
        """Raises SettingsError for an unknown placeholder, and for one where a task must have no say: as the program,
        and within what a shell is to run."""
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
        if any(_names(word) for word in _scripts(words)):
            raise SettingsError(
                "A placeholder within what a shell runs would let the task run anything.",
                hint='Use the variable, in quotation marks: "$SESSION_RELAY_DESCRIPTION".',
            )

    def fill(self, values: Mapping[str, str]) -> list[str]:
        """The command with these values. Raises Invalid if one would be taken for an option, as it begins with `-`
        and stands where options can stand: at the beginning of a word before any `--`."""
        filled: list[str] = []
        may_be_option = True
        for word in self._words:
            text = _PLACEHOLDER.sub(lambda found: f"{{{found[1]}}}" if found[1] else values[found[2]], word)
            first = _PLACEHOLDER.match(word)
            may_be_option = may_be_option and word != "--"
            if may_be_option and first and first[2] and text.startswith("-"):
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


def _scripts(words: Sequence[str]) -> Iterator[str]:
    """The words that a shell runs: after its -c, and all that ssh hands to the shell at the other end."""
    programs = [PurePath(word).name for word in words]
    if "ssh" in programs:
        yield from words[programs.index("ssh") :]
    shell = next((number for number, name in enumerate(programs) if name in SHELLS), len(words))
    for option, word in pairwise(words[shell:]):
        if _SCRIPT_OPTION.fullmatch(option) or word.startswith("--command="):
            yield word


def _names(word: str) -> list[str]:
    return [found[2] for found in _PLACEHOLDER.finditer(word) if found[2]]

"""Commands in which a task could inject code are refused, each with a task that would create a file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from agent.execution.placeholders import NAMES, Template
from agent.execution.processes import Process
from models.errors import Invalid, SettingsError

TOUCH = "touch FILE"
OPENING = "open('FILE', 'w')"


class Spelling(NamedTuple):
    """A command, and a description that creates FILE if it is carried out."""

    command: str
    description: str = TOUCH
    runs_here: bool = True
    """Whether it can run in a test: its program needs only a command line, if installed."""


LIVE = [
    Spelling("sh|-c|{description}"),
    Spelling("sh|-ce|{description}"),
    Spelling("sh|-ec|{description}"),
    Spelling("/bin/sh|-c|{description}"),
    Spelling("/bin/../bin/sh|-c|{description}"),
    Spelling("sh|-c|true; {description}"),
    Spelling('sh|-c|eval "$1"|sh|{description}'),
    Spelling("sh|-c|-e|{description}"),
    Spelling("bash|-c|--|{description}"),
    Spelling("bash|--norc|-c|{description}"),
    Spelling("bash|-O|extglob|-c|{description}"),
    Spelling("bash|+e|-c|{description}"),
    Spelling("rbash|-c|{description}"),
    Spelling("dash|-c|{description}"),
    Spelling("zsh|-c|{description}"),
    Spelling("ksh93|-c|{description}"),
    Spelling("fish|-C|{description}"),
    Spelling("busybox|sh|-c|{description}"),
    Spelling("LINK|-c|{description}"),
    Spelling("env|A=b|sh|-c|{description}"),
    Spelling("env|-S|sh -c|{description}"),
    Spelling("env|-S|sh -c '{description}'"),
    Spelling("env|--split-string=sh -c '{description}'"),
    Spelling("env|-iS|/bin/sh -c '{description}'"),
    Spelling("env|{description}|OWN", "LD_PRELOAD=FOLDER/evil.so", runs_here=False),
    Spelling("flock|LOCK|-c|{description}"),
    Spelling("sg|root|-c|{description}"),
    Spelling("sudo|-s|{description}", runs_here=False),
    Spelling("sudo|sh|-c|{description}", runs_here=False),
    Spelling("doas|sh|-c|{description}", runs_here=False),
    Spelling("su|root|-c|{description}"),
    Spelling("su|root|--command={description}"),
    Spelling("runuser|root|-c|{description}"),
    Spelling("script|-qc|{description}|/dev/null"),
    Spelling("script|-q|--command={description}|/dev/null"),
    Spelling("timeout|2|watch|-g|-t|{description}", runs_here=False),
    Spelling("parallel|{description}|:::|x", runs_here=False),  # Another program may have this name.
    Spelling("xargs|-I@|sh|-c|{description}"),
    Spelling("xargs|-a|WORDS|sh|-c|{description}"),
    Spelling("find|FOLDER|-maxdepth|0|-exec|sh|-c|{description}|;"),
    Spelling("find|FOLDER|-maxdepth|0|{description}|FILE", "-fprint"),
    Spelling("ssh|host|{description}", runs_here=False),
    Spelling("ssh|-o|ProxyCommand={description}|127.0.0.1"),
    Spelling("nohup|sh|-c|{description}"),
    Spelling("nice|-n|5|sh|-c|{description}"),
    Spelling("timeout|9|sh|-c|{description}"),
    Spelling("timeout|-k|1|9|env|A=b|nice|bash|-c|{description}"),
    Spelling("stdbuf|-o|L|sh|-c|{description}"),
    Spelling("setsid|-w|sh|-c|{description}"),
    Spelling("setpriv|--no-new-privs|sh|-c|{description}"),
    Spelling("unshare|sh|-c|{description}"),
    Spelling("chroot|/|sh|-c|{description}"),
    Spelling("strace|-o|/dev/null|sh|-c|{description}", runs_here=False),
    Spelling("systemd-run|--user|sh|-c|{description}", runs_here=False),
    Spelling("start-stop-daemon|--start|--exec|/bin/sh|--|-c|{description}", runs_here=False),
    Spelling("docker|exec|box|sh|-c|{description}", runs_here=False),
    Spelling("podman|exec|box|sh|-c|{description}", runs_here=False),
    Spelling("tmux|new-session|-d|{description}", runs_here=False),
    Spelling("screen|-dm|sh|-c|{description}", runs_here=False),
    Spelling("at|-f|{description}|now", runs_here=False),
    Spelling("make|--eval={description}", "$(shell touch FILE)"),
    Spelling("make|-f|/dev/null|--eval|{description}", "x:;touch FILE"),
    Spelling("git|-c|alias.x={description}|x", "!touch FILE"),
    Spelling("git|-c|{description}|x", "alias.x=!touch FILE"),
    Spelling("PYTHON|-c|{description}", OPENING),
    Spelling("PYTHON|-Sc|{description}", OPENING),
    Spelling("PYTHON|-W|ignore|{description}", "SCRIPT"),
    Spelling("PYTHON|{description}", "SCRIPT"),
    Spelling("PYTHON|-m|timeit|-n1|-r1|{description}", OPENING),
    Spelling("PYTHON|-X|utf8|-c|exec(__import__('sys').argv[1])|{description}", OPENING),
    Spelling("perl|-e|{description}", "open(F, '>FILE')"),
    Spelling("perl|-ne|0|{description}", "touch FILE|"),
    Spelling("ruby|-e|{description}", "File.write('FILE', '')"),
    Spelling("node|-e|{description}", "require('fs').writeFileSync('FILE', '')"),
    Spelling("node|--require|{description}|SCRIPT", "SCRIPT.js"),
    Spelling("npx|-c|{description}", runs_here=False),
    Spelling("php|-r|{description}", "touch('FILE');"),
    Spelling("awk|{description}", 'BEGIN { system("touch FILE") }'),
    Spelling("mawk|BEGIN {system(x)}|{description}", runs_here=False),
    Spelling("sed|-n|-e|{description}|WORDS", "1w FILE"),
    Spelling("sqlite3|:memory:|{description}", ".shell touch FILE"),
    Spelling("tar|-cf|/dev/null|--checkpoint=1|--checkpoint-action=exec={description}|WORDS"),
    Spelling("tclsh|{description}", "SCRIPT.tcl"),
    Spelling("gdb|-batch|-ex|{description}", "shell touch FILE"),
    Spelling("vim|-es|-c|{description}|-c|q", "!touch FILE", runs_here=False),
    Spelling("eval|{description}"),
    Spelling("OWN|--command={description}"),
    Spelling("OWN|-c|{description}"),
    Spelling("timeout|9|{description}", "SCRIPT.own"),
    Spelling("timeout|{description}|OWN", runs_here=False),
    Spelling("nice|--|{description}", "SCRIPT.own"),
    Spelling("env|-i|{description}", "SCRIPT.own"),
    Spelling("OWN|-{description}", "c=touch FILE"),
    Spelling("OWN|--{description}", "command=touch FILE"),
    Spelling("OWN|--{task_type}=x", runs_here=False),
    Spelling("sh", "$(touch FILE)"),
    Spelling("timeout|9|bash|-s", "$(touch FILE)"),
    Spelling("env|A=b|sh|-e", "$(touch FILE)"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the spellings use: a link to a shell under another name, scripts, and a program with an option for
    code."""
    folder = tmp_path_factory.mktemp("guard")
    (folder / "agent").symlink_to(shutil.which("sh") or "/bin/sh")
    own = folder / "own-agent"
    own.write_text('#!/bin/sh\ncase "$1" in --command=*|-c=*) eval "${1#*=}";; -c) eval "$2";; esac\n')
    (folder / "words").write_text("word\n")
    for program in (own, folder / "script"):
        program.touch()
        program.chmod(0o755)
    return folder


def texts_of(spelling: Spelling, folder: Path, *, number: int) -> tuple[list[str], str, Path]:
    """Return the words and the description with real paths, and the file that must not be created."""
    file = folder / f"created-{number}"
    script = folder / f"script-{number}"
    script.write_text(f"open({str(file)!r}, 'w')")
    script.with_suffix(".js").write_text(f"require('fs').writeFileSync({str(file)!r}, '')")
    script.with_suffix(".tcl").write_text(f"open {file} w")
    own = script.with_suffix(".own")
    own.write_text(f"#!/bin/sh\ntouch {file}\n")
    own.chmod(0o755)
    stands = {
        "FILE": file,
        "FOLDER": folder,
        "LOCK": folder / "lock",
        "LINK": folder / "agent",
        "OWN": folder / "own-agent",
        "WORDS": folder / "words",
        "PYTHON": sys.executable,
        "SCRIPT": script,
    }

    def put_in(text: str) -> str:
        for name, value in stands.items():
            text = text.replace(name, str(value))
        return text

    return [put_in(word) for word in spelling.command.split("|")], put_in(spelling.description), file


ENVIRONMENT = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


def write_task(description: str, file: Path) -> Path:
    """Write the task that a command gets on stdin."""
    task = file.with_suffix(".json")
    task.write_text(f'{{"task_id": "t", "description": "{description}"}}'.replace("'", ""))
    return task


def test_no_spelling_lets_a_task_inject_code(folder: Path) -> None:
    let_through = []
    for number, spelling in enumerate(LIVE):
        words, description, file = texts_of(spelling, folder, number=number)
        values = dict.fromkeys(NAMES, "") | {"description": description, "task_type": "x"}
        try:
            filled = Template(words).fill(values)
        except (SettingsError, Invalid):
            continue
        Process(filled, input=write_task(description, file), environment=ENVIRONMENT).wait(20)
        let_through.append((spelling.command, file.exists()))
    assert not let_through, "\n".join(map(str, let_through))
    assert not [path for path in folder.glob("created-*") if not path.suffix]


def test_the_tasks_would_create_a_file_without_the_guard(folder: Path) -> None:
    runs = []
    for number, spelling in enumerate(LIVE, start=1_000):
        words, description, file = texts_of(spelling, folder, number=number)
        if spelling.runs_here and shutil.which(words[0]):
            filled = [word.replace("{description}", description) for word in words]
            errors = file.with_suffix(".errors")
            with write_task(description, file).open("rb") as task, errors.open("wb") as said:
                # Without the reaper of a runner, whose start takes most of the time.
                process = subprocess.Popen(
                    filled, stdin=task, stdout=said, stderr=said, env=ENVIRONMENT, start_new_session=True
                )
            runs.append((spelling.command, file, errors, process))
    harmless = []
    for command, file, errors, process in runs:
        process.wait(20)
        if not file.exists():
            harmless.append((command, errors.read_text(errors="replace")))
        file.unlink(missing_ok=True)
    assert not harmless, "\n".join(map(str, harmless))
    assert len(runs) > 40


@pytest.mark.parametrize(
    "command",
    [
        "claude|-p|{description}|--permission-mode|dontAsk",
        "claude|-p|{description}|--append-system-prompt|Find the files, and put them into {artifact_dir}.",
        "gemini|--prompt={description}",
        "codex|exec|--sandbox|read-only|--|{description}",
        "timeout|-k|5|9|nice|-n|5|env|-u|A|B=c|claude|-p|{description}",
        "nohup|stdbuf|-oL|claude|-p|{description}",
        "PYTHON|-I|agent.py|{description}|--dir={artifact_dir}",
        "node|agent.js|{description}",
        "npx|-y|@anthropic-ai/claude-code|-p|{description}",
        "./agent.sh|{description}",
        "./find-prices|-o{artifact_dir}|{description}",
        'sh|-c|claude -p "$SESSION_RELAY_DESCRIPTION" > log',
        "sh|agent.sh",
    ],
)
def test_a_program_of_the_command_gets_the_description(command: str) -> None:
    words = command.replace("PYTHON", sys.executable).split("|")
    values = dict.fromkeys(NAMES, "") | {"description": "Find $(touch x)", "artifact_dir": "/tmp/a"}
    filled = Template(words).fill(values)
    assert filled == [
        word.replace("{description}", "Find $(touch x)").replace("{artifact_dir}", "/tmp/a") for word in words
    ]


@pytest.mark.parametrize(
    ("command", "is_refused"),
    [
        ("timeout|9|--|claude|-p|{description}", True),
        ("codex|--|exec|{description}", True),
        ("timeout|9|--|codex|exec|--|{description}", False),
        ("codex|exec|--|{task_type}|{description}", False),
        ("codex|exec|--prompt={description}", False),
    ],
)
def test_only_an_argument_right_after_two_dashes_may_begin_with_a_dash(command: str, is_refused: bool) -> None:
    values = dict.fromkeys(NAMES, "") | {"description": "--yolo", "task_type": "x"}
    template = Template(command.split("|"))
    if is_refused:
        with pytest.raises(Invalid, match="begins with -"):
            template.fill(values)
    else:
        assert template.fill(values)[-1].endswith("--yolo")

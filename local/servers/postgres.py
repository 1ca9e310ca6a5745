"""Prepares embedded Postgres: its folders, its database, and the command to run it.

binaries.py finds the binaries; a supervisor runs the command.
"""

from __future__ import annotations

import hashlib
import locale
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import psycopg2

from local.data_dir import FolderError, Lock, make_private, make_socket_folder
from local.servers.binaries import MAJOR, postgres_binaries
from local.servers.orphans import end_orphans, mark
from local.servers.run_as import Account, can_enter, make_state_folder, unprivileged_account
from local.servers.service import Say, Service, StartError, last_lines, log_file, silent
from models.process.supervision import Child

ROLE = "postgres"
TITLE = f"Postgres {MAJOR}"
SOCKET_NAME = ".s.PGSQL.5432.lock"
"""The longer of the two file names that Postgres uses in its socket folder."""
STOP_SECONDS = 30.0
"""Long enough for a fast shutdown, which writes a checkpoint."""
SETTINGS = {"max_connections": "100", "listen_addresses": "", "port": "5432", "unix_socket_permissions": "0700"}


def prepare_postgres(data_dir: Path, *, settings: Mapping[str, str] | None = None, say: Say = silent) -> Service:
    """Prepare the start: lock, orphans, folders, account, binaries, and on the first run the database.

    The socket is in a folder that only its owner can enter, so all clients are trusted. `settings` are server settings;
    with `fsync` off, initdb does not sync either. Raises FolderError, StartError.
    """
    home = _home(data_dir, say=say)
    lock = Lock(home.with_name(f"{home.name}.lock"), subject=f"The Postgres data folder {home}")
    try:
        if ended := end_orphans(data_dir, ROLE, home=home):
            say(f"Stopped the Postgres of a killed stack: {ended[0]}.")
        account = unprivileged_account(home)
        make_private(home, account=account)
        binaries = postgres_binaries(account, say=say)
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **mark(data_dir, ROLE)}
        all_settings = SETTINGS | dict(settings or {})
        log = log_file(data_dir, "postgres")
        if not (home / "data").exists():
            synced = all_settings.get("fsync") != "off"
            _make_database(home, binaries, account=account, environment=environment, log=log, synced=synced)
        _check_version(home / "data")
        sockets = make_socket_folder(home, SOCKET_NAME, account=account)
    except BaseException:
        lock.release()
        raise
    all_settings["unix_socket_directories"] = str(sockets)
    options = [part for name, value in all_settings.items() for part in ("-c", f"{name}={value}")]
    url = f"postgresql://postgres@/postgres?host={sockets}"
    return Service(
        title=TITLE,
        child=Child(
            name="postgres",
            command=(str(binaries / "postgres"), "-D", str(home / "data"), *options),
            environment=environment,
            folder=Path("/"),
            log=log,
            account=account.ids if account else None,
            lifeline=False,
            stop_signal=signal.SIGINT,
            stop_timeout_seconds=STOP_SECONDS,
        ),
        url=url,
        answers=lambda: _answers(url),
        role=ROLE,
        home=home,
        sockets=sockets,
        lock=lock,
    )


def schema_revision(url: str) -> str | None:
    """Read the revision of the product's tables. Returns None if there are none, or if the database does not respond.

    Without SQLAlchemy, whose import takes longer than all else that the stack imports.
    """
    try:
        with closing(psycopg2.connect(url, connect_timeout=2)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass('alembic_version')")
            if cursor.fetchone() == (None,):
                return None
            cursor.execute("SELECT version_num FROM alembic_version")
            found = cursor.fetchone()
    except psycopg2.Error:
        return None
    return str(found[0]) if found else None


def _answers(url: str) -> bool:
    try:
        psycopg2.connect(url, connect_timeout=2).close()
    except psycopg2.OperationalError:
        return False
    return True


def _home(data_dir: Path, *, say: Say) -> Path:
    """Choose the folder of data and socket: in DATA_DIR, or in a system folder that is linked from there if Postgres'
    account cannot enter DATA_DIR."""
    home = data_dir / "postgres"
    account = unprivileged_account(home)
    if account and not home.exists():
        home.unlink(missing_ok=True)  # A dangling link.
        if not can_enter(account, data_dir):
            home.symlink_to(_home_elsewhere(data_dir))
    if home.is_symlink():
        say(f"Postgres stores its data in {home.resolve()}, because its user cannot enter {data_dir}.")
    home = home.resolve()
    if account and not can_enter(account, home if home.exists() else home.parent):
        raise FolderError(f"Postgres' user {account.name} cannot enter all parent folders of {home}.")
    return home


def _home_elsewhere(data_dir: Path) -> Path:
    home = make_state_folder(hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]) / "postgres"
    return make_private(home, account=unprivileged_account(home))


def _make_database(
    home: Path, binaries: Path, *, account: Account | None, environment: Mapping[str, str], log: Path, synced: bool
) -> None:
    """Run initdb in a temporary folder and rename that, so that an incomplete database is never started."""
    draft = home / "data.new"
    if draft.exists():
        shutil.rmtree(draft)
    command = [str(binaries / "initdb"), "-D", str(draft), "-U", "postgres", "--auth=trust", "--encoding=UTF8"]
    # The builtin provider sorts and folds case without the system's locales. Full-text search, however, uses the
    # system's character types: with plain C, non-ASCII dashes and quotes would become parts of words.
    command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", f"--lc-ctype={_letters()}"]
    command += ["--no-instructions", *([] if synced else ["--no-sync"])]
    with log.open("ab") as output:
        user, group = account.ids if account else (None, None)
        done = subprocess.run(  # noqa: S603
            command,
            env=dict(environment),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            process_group=0,
            user=user,
            group=group,
            extra_groups=[] if account else None,
            check=False,
        )
    if done.returncode != 0:
        raise StartError(f"initdb failed. The end of {log}:\n{last_lines(log)}")
    draft.rename(home / "data")


def _letters() -> str:
    """Return the name of a UTF-8 character type of this machine, else C."""
    before = locale.setlocale(locale.LC_CTYPE)
    try:
        for name in ("C.UTF-8", "en_US.UTF-8"):
            try:
                return locale.setlocale(locale.LC_CTYPE, name)
            except locale.Error:
                continue
        return "C"
    finally:
        locale.setlocale(locale.LC_CTYPE, before)


def _check_version(data: Path) -> None:
    version = (data / "PG_VERSION").read_text().strip()
    if version != str(MAJOR):
        raise StartError(
            f"{data} was created by Postgres {version}, but this is Postgres {MAJOR}.",
            hint="Dump it with the old version and restore it into a new DATA_DIR.",
        )

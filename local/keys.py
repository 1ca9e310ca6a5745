"""API keys from the command line: `python -m local.keys`, on the servers of the environment or of the running stack."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from api.operations.api_keys import describe_key, describe_revocation
from local.operator.server_discovery import known_servers
from local.stack.environment import read_env_file
from models.access.api_keys import HOOK_PREFIX
from models.access.scopes import ALL_SCOPES
from models.errors import RelayError, SettingsError
from models.routes import template_of
from models.settings import Settings, read_settings
from relay.auth.signing_secrets import webhook_secrets
from sessions.api_keys import KeyRegister, connect_register

COLUMNS = ("key_id", "name", "scopes", "sessions", "created_at", "revoked_at")

Action = Callable[[KeyRegister, argparse.Namespace], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """Make, list or revoke keys; 0 if done, 1 if not, 2 for wrong usage."""
    asked = _parser().parse_args(arguments)
    action: Action = asked.action
    try:
        settings = find_servers({**read_env_file(Path(".env")), **os.environ})
        names = {secret.source for secret in webhook_secrets(settings)}
        register = connect_register(settings, taken_names=names)
        try:
            action(register, asked)
        finally:
            register.close()
    except RelayError as error:
        print(" ".join(part for part in ("session-relay:", error.message, error.hint) if part), file=sys.stderr)
        return 2 if isinstance(error, SettingsError) else 1
    return 0


def find_servers(environment: Mapping[str, str]) -> Settings:
    """The settings of the environment, with the servers of the stack that runs on DATA_DIR where it names none."""
    settings = read_settings(environment)
    if settings.database_url and settings.redis_url:
        return settings
    servers = known_servers(environment)
    return msgspec.structs.replace(settings, database_url=servers.database_url, redis_url=servers.redis_url)


def create(register: KeyRegister, asked: argparse.Namespace) -> None:
    """Make a key and print it: alone on standard output, so that it can be piped to where it is needed."""
    scopes = asked.scope or (["hook"] if asked.hook else ["write"])
    new = register.create(
        name=asked.name,
        scopes=scopes,
        session_glob=asked.hook or asked.sessions,
        created_by=f"{getpass.getuser()} (command line)",
        rotate=asked.rotate,
    )
    if asked.json:
        print(msgspec.json.encode({"key": new.secret, **describe_key(new.entry)}).decode())
        return
    print(template_of("hook").format(token=new.secret) if new.secret.startswith(HOOK_PREFIX) else new.secret)
    print(
        f"{new.entry.key_id} for {new.entry.name!r} ({', '.join(new.entry.scopes)}; sessions: "
        f"{new.entry.session_glob or 'all'}). It is shown this once, and works within 5 s.",
        file=sys.stderr,
    )


def show(register: KeyRegister, asked: argparse.Namespace) -> None:
    """Print all keys, as a table with tabs, or as JSON."""
    items = [describe_key(entry) for entry in register.entries()]
    if asked.json:
        print(msgspec.json.encode(items).decode())
        return
    print("\t".join(COLUMNS))
    for item in items:
        item["scopes"] = ",".join(item["scopes"])
        print("\t".join(str(item[name] or "") for name in COLUMNS))


def revoke(register: KeyRegister, asked: argparse.Namespace) -> None:
    """Revoke a key, or all keys of a name."""
    revoked = register.revoke(asked.name_or_id, by=f"{getpass.getuser()} (command line)")
    if asked.json:
        print(msgspec.json.encode(describe_revocation(revoked)).decode())
        return
    for old in revoked.revocations:
        print(f"{old.key_id} of {old.name!r} is refused within 5 s.")
    if not revoked.recorded:
        print("Postgres does not answer; a worker records it there when it is back.", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local.keys", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="create|list|revoke")
    making = actions.add_parser("create", help="make a key, and show it this once")
    making.add_argument("name", help="who sends with it: 1 to 64 letters, digits and . _ -")
    making.add_argument("--scope", action="append", choices=ALL_SCOPES, help="may be repeated; write unless given")
    where = making.add_mutually_exclusive_group()
    where.add_argument("--sessions", metavar="PATTERN", help="only sessions that match, such as 'chat-*'")
    where.add_argument("--hook", metavar="SESSION_ID", help="a token in an address, which stores into this session")
    making.add_argument("--rotate", action="store_true", help="a further key of a sender that has one")
    making.set_defaults(action=create)
    listing = actions.add_parser("list", help="show all keys, without their secrets")
    listing.set_defaults(action=show)
    ending = actions.add_parser("revoke", help="refuse a key, or all keys of a name, for ever")
    ending.add_argument("name_or_id", metavar="NAME|KEY_ID")
    ending.set_defaults(action=revoke)
    for action in (making, listing, ending):
        action.add_argument("--json", action="store_true", help="print JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""Creates, lists and revokes API keys directly on Postgres and Redis: `python -m local.keys`.

The servers are those of DATABASE_URL and REDIS_URL, or of the running local stack.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from models.process.missing_packages import explained_if_missing

with explained_if_missing():
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
    """Create, list or revoke keys. Returns 0 for success, 1 for failure, 2 for invalid usage or settings."""
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
    """Read the settings, taking unset server URLs from the stack that runs on DATA_DIR."""
    settings = read_settings(environment)
    if settings.database_url and settings.redis_url:
        return settings
    servers = known_servers(environment)
    return msgspec.structs.replace(settings, database_url=servers.database_url, redis_url=servers.redis_url)


def create(register: KeyRegister, asked: argparse.Namespace) -> None:
    """Create a key. Prints only the key to stdout, so that it can be piped."""
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
        f"{new.entry.session_glob or 'all'}). It is shown only once, and becomes valid within 5 s.",
        file=sys.stderr,
    )


def show(register: KeyRegister, asked: argparse.Namespace) -> None:
    """Print all keys as TSV or JSON."""
    items = [describe_key(entry) for entry in register.entries()]
    if asked.json:
        print(msgspec.json.encode(items).decode())
        return
    print("\t".join(COLUMNS))
    for item in items:
        item["scopes"] = ",".join(item["scopes"])
        print("\t".join(str(item[name] or "") for name in COLUMNS))


def revoke(register: KeyRegister, asked: argparse.Namespace) -> None:
    """Revoke a key, or all keys of a sender."""
    revoked = register.revoke(asked.name_or_id, by=f"{getpass.getuser()} (command line)")
    if asked.json:
        print(msgspec.json.encode(describe_revocation(revoked)).decode())
        return
    for old in revoked.revocations:
        print(f"Revoked {old.key_id} of {old.name!r}; relays reject it within 5 s.")
    if not revoked.recorded:
        print("Postgres is not responding; a worker will record the revocation once it is back.", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m local.keys", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="create|list|revoke")
    making = actions.add_parser("create", help="create a key and show it once")
    making.add_argument("name", help="sender: 1 to 64 letters, digits and . _ -")
    making.add_argument("--scope", action="append", choices=ALL_SCOPES, help="scope; may be repeated (default: write)")
    where = making.add_mutually_exclusive_group()
    where.add_argument("--sessions", metavar="PATTERN", help="restrict to matching sessions, such as 'chat-*'")
    where.add_argument("--hook", metavar="SESSION_ID", help="create a webhook URL that stores into this session")
    making.add_argument("--rotate", action="store_true", help="add a key for a sender that already has one")
    making.set_defaults(action=create)
    listing = actions.add_parser("list", help="list all keys, without their secrets")
    listing.set_defaults(action=show)
    ending = actions.add_parser("revoke", help="revoke a key, or all keys of a sender, permanently")
    ending.add_argument("name_or_id", metavar="NAME|KEY_ID")
    ending.set_defaults(action=revoke)
    for action in (making, listing, ending):
        action.add_argument("--json", action="store_true", help="output JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())

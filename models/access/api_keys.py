"""API keys as all processes know them: their form, and the copy of the register in Redis that every relay reads.

Postgres has the truth; who makes and revokes keys is in `sessions.api_keys`, who is let in by them in `relay`.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
from datetime import datetime

import msgspec

from models.field_types import Scope

KEY_PREFIX = "srk_"
HOOK_PREFIX = "srh_"
"""Of a token that stands in an address, for senders that can set no header."""
OAUTH_PREFIX = "sro_"
"""Of a token that an app got because somebody signed in with a key."""
SECRET_LENGTH = 40
"""Letters and digits: 238 bits, nothing that an address or a shell would treat specially."""
ID_PREFIX = "key_"
ID_LENGTH = 12
"""Hex digits of a key's hash, by which people tell keys apart."""

NAME_PATTERN = r"^(?!key_)[A-Za-z0-9][A-Za-z0-9._-]{0,63}$(?!\n)"
"""No colon: the keys in Redis put one between a source and a delivery id, which may have some itself."""
GLOB_PATTERN = r"^[A-Za-z0-9._:@*?-]{1,128}$(?!\n)"

REGISTER_KEY = "sr:keys"
"""A hash: of each key that is in force, by the key's own hash, a KeyRecord."""
REVOKED_KEY = "sr:keys:revoked"
"""A hash of Revocations, by the key's own hash. They stay, whatever Postgres is restored to."""
VERSION_KEY = "sr:keys:version"
"""Another value after each change. Absent while the copy is not complete."""

_ALPHABET = string.ascii_letters + string.digits
_FORM = re.compile(rf"(?:{KEY_PREFIX}|{HOOK_PREFIX}|{OAUTH_PREFIX})[A-Za-z0-9]{{{SECRET_LENGTH}}}")


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A key in force: whose it is, and what it allows."""

    key_id: str
    name: str
    scopes: tuple[Scope, ...]
    session_glob: str | None = None
    parent_hash: str | None = None
    """Of an app's token: the hash of the key that it stands for, without which it is worth nothing."""


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """That a key is refused for ever."""

    key_id: str
    name: str
    revoked_at: datetime
    revoked_by: str


def make_secret(prefix: str) -> str:
    """A new key or token."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(SECRET_LENGTH))


def has_form_of_key(text: str) -> bool:
    """Whether it could be a key or token that was made here."""
    return _FORM.fullmatch(text) is not None


def hash_key(key: str) -> str:
    """All that is kept of a key. It is long and random, so that a plain SHA-256 cannot be searched back."""
    return hashlib.sha256(key.encode()).hexdigest()


def key_id_of(key_hash: str) -> str:
    """How people name a key."""
    return ID_PREFIX + key_hash[:ID_LENGTH]

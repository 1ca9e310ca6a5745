"""The format of API keys and of their copy in Redis, which every relay reads.

Postgres is authoritative. `sessions.api_keys` creates and revokes keys; `relay` authenticates requests with them.
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
"""The prefix of tokens in URLs, for senders that cannot set headers."""
OAUTH_PREFIX = "sro_"
"""The prefix of tokens issued to an app after its user signed in with a key."""
SECRET_LENGTH = 40
"""Letters and digits: 238 bits, without characters that are special in URLs or shells."""
ID_PREFIX = "key_"
ID_LENGTH = 12
"""Hex digits of a key's hash, by which people identify keys."""

NAME_PATTERN = r"^(?!key_)[A-Za-z0-9][A-Za-z0-9._-]{0,63}$(?!\n)"
"""No colon: Redis keys use it to separate the source from the delivery id, which may contain colons."""
GLOB_PATTERN = r"^[A-Za-z0-9._:@*?-]{1,128}$(?!\n)"

REGISTER_KEY = "sr:keys"
"""A Redis hash from the hash of each active key to its KeyRecord."""
REVOKED_KEY = "sr:keys:revoked"
"""A Redis hash from the hashes of revoked keys to Revocations, which are kept even when Postgres is restored."""
VERSION_KEY = "sr:keys:version"
"""Changes its value with each change of a key. Absent while the copy is incomplete."""

_ALPHABET = string.ascii_letters + string.digits
_FORM = re.compile(rf"(?:{KEY_PREFIX}|{HOOK_PREFIX}|{OAUTH_PREFIX})[A-Za-z0-9]{{{SECRET_LENGTH}}}")


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An active key: its owner and permissions."""

    key_id: str
    name: str
    scopes: tuple[Scope, ...]
    session_glob: str | None = None
    parent_hash: str | None = None
    """For an app's token: the hash of the key that it was issued for, and is valid only with."""


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """The permanent revocation of a key."""

    key_id: str
    name: str
    revoked_at: datetime
    revoked_by: str


def make_secret(prefix: str) -> str:
    """Create a new key or token."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(SECRET_LENGTH))


def has_form_of_key(text: str) -> bool:
    """Return whether the text has the format of our keys and tokens."""
    return _FORM.fullmatch(text) is not None


def hash_key(key: str) -> str:
    """Return the hash that is stored for a key. A plain SHA-256 is safe because keys are long and random."""
    return hashlib.sha256(key.encode()).hexdigest()


def key_id_of(key_hash: str) -> str:
    """Return the id by which people refer to a key."""
    return ID_PREFIX + key_hash[:ID_LENGTH]

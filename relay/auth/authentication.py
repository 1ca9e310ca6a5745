"""Who calls and what it may do. All kinds of credentials become a Caller here; nothing else reads them."""

from __future__ import annotations

import hmac
import time

import msgspec
from starlette.datastructures import Headers

from models.access.api_keys import HOOK_PREFIX, KEY_PREFIX, OAUTH_PREFIX, has_form_of_key, hash_key
from models.access.scopes import ALL_SCOPES, HELD_SCOPES, allows
from models.access.session_glob import matches_glob
from models.commands.definitions import Command
from models.commands.payloads import scopes_of
from models.errors import Forbidden, NotFound, SettingsError, Unauthorized
from models.field_types import Scope
from models.settings import Settings
from relay.auth.api_key_cache import ApiKeyCache
from relay.auth.signatures import GithubSignature, Signature, not_signed_by_us, read_signature
from relay.auth.signing_secrets import DEFAULT_SOURCE, github_secrets, webhook_secrets

BLANKS = " \t\r\n"
"""Of ASCII: the bytes of other blanks are also parts of letters."""


class SignedDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """What a signature vouches for beside the sender."""

    id: str
    event: str = ""
    """What GitHub says that it is."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated sender."""

    source: str
    scopes: tuple[Scope, ...]
    session_glob: str | None = None
    signed: SignedDelivery | None = None
    """Only of who signs; who has a key names the delivery itself, or not at all."""
    key_hash: str | None = None
    """Of a key in the register, which may be revoked while its caller waits."""

    def has(self, scope: Scope) -> bool:
        """Whether it may do what needs `scope`."""
        return allows(self.scopes, scope)

    def sees(self, session_id: str | None) -> bool:
        """Whether the session is among those that the key is for: `*` is any text, `?` one character."""
        return session_id is None or matches_glob(session_id, self.session_glob)


class Authenticator:
    """Knows the credentials that are valid."""

    def __init__(self, settings: Settings, key_cache: ApiKeyCache) -> None:
        """Raises SettingsError without any credential, or for secrets that are none."""
        self._api_key = settings.api_key.encode()
        self._key_cache = key_cache
        self._webhook_secrets = webhook_secrets(settings)
        self._github_secrets = github_secrets(settings)
        if not (self._api_key or self._webhook_secrets or self._github_secrets):
            raise SettingsError(
                "API_KEY is not set, nor WEBHOOK_SECRETS, nor GITHUB_WEBHOOK_SECRET: "
                "without a key or a secret nobody could be let in, so nothing is started."
            )

    def signature_of(self, headers: Headers) -> Signature | None:
        """The signature that a request carries, by which alone it is judged, whatever key it carries beside. None
        without any header of one. Raises Unauthorized for one that cannot be valid."""
        return read_signature(headers, now=time.time())

    def find_signer(self, signature: Signature, body: bytes) -> Caller:
        """The caller whose secret made the signature over the body. Raises Unauthorized."""
        from_github = isinstance(signature, GithubSignature)
        secret = signature.signer(self._github_secrets if from_github else self._webhook_secrets, body)
        if secret is None:
            raise not_signed_by_us()
        signed = SignedDelivery(id=signature.delivery_id_of(body), event=signature.event)
        return Caller(source=secret.source, scopes=("send",), session_glob=secret.session_glob, signed=signed)

    def authenticate(self, headers: Headers) -> Caller:
        """The caller whose key the headers carry. Raises Unauthorized, Forbidden for a request that is signed, or
        Unavailable while keys cannot be known."""
        if self.signature_of(headers) is not None:
            raise Forbidden("A signature lets in commands alone.", expected="a request with an API key, and not signed")
        return self.find_key(headers)

    def find_hook(self, token: str) -> Caller:
        """The caller whose token stands in the address. Raises NotFound, or Unavailable while it cannot be known."""
        token = token.strip(BLANKS)
        key_hash = hash_key(token)
        record = self._key_cache.find(key_hash) if token.startswith(HOOK_PREFIX) and has_form_of_key(token) else None
        if record is None or record.scopes != ("hook",):
            raise NotFound("There is no hook at this address, or it was revoked.", code="unknown_hook")
        return _caller_of(record.name, record.scopes, record.session_glob, key_hash)

    def require_valid(self, caller: Caller) -> None:
        """Raise Unauthorized if the caller's key was revoked since it was let in, or Unavailable if that is unknown."""
        if caller.key_hash is not None and self._key_cache.find(caller.key_hash) is None:
            raise _unknown_key()

    def find_key(self, headers: Headers) -> Caller:
        """The caller whose key the headers carry, of a request without signature. Raises Unauthorized, or
        Unavailable."""
        scheme, _, token = headers.get("authorization", "").strip(BLANKS).partition(" ")
        given = headers.get("x-api-key", "").strip(BLANKS) or (
            token.strip(BLANKS) if scheme.lower() == "bearer" else ""
        )
        if not given:
            raise Unauthorized("No API key was given.", code="key_missing", hint=_HOW_TO_SEND_A_KEY)
        return self.identify(given.encode("latin-1").decode(errors="surrogateescape"))

    def identify(self, given: str) -> Caller:
        """The caller who has this key, or an app's token. Takes the same time for any wrong one. Raises Unauthorized,
        or Unavailable."""
        if self._api_key and hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._api_key):
            return Caller(source=DEFAULT_SOURCE, scopes=ALL_SCOPES)
        if has_form_of_key(given):
            if given.startswith(HOOK_PREFIX):
                raise Unauthorized(
                    "This is the token of a hook, not an API key.", hint="Post to /v1/hooks/ followed by the token."
                )
            key_hash = hash_key(given)
            record = self._key_cache.find(key_hash)
            if record is not None and given.startswith((KEY_PREFIX, OAUTH_PREFIX)):
                return _caller_of(record.name, record.scopes, record.session_glob, key_hash)
        raise _unknown_key()


_HOW_TO_SEND_A_KEY = "Send it in the header X-API-Key, or as Authorization: Bearer KEY."


def require_scope(caller: Caller, scope: Scope) -> None:
    """Raise Forbidden, naming the scope, unless the caller has it."""
    if not caller.has(scope):
        raise Forbidden(
            f"The key or secret does not have the scope {scope!r}.", expected=f"a key with the scope {scope}"
        )


def require_session(caller: Caller, session_id: str | None) -> None:
    """Raise Forbidden, naming the pattern, unless the key is for that session."""
    if not caller.sees(session_id):
        raise Forbidden(
            "The key or secret is not for this session.",
            field="session_id",
            expected=f"a session_id that matches {caller.session_glob}",
        )


def require_all_sessions(caller: Caller) -> None:
    """Raise Forbidden if the key is limited to some sessions: what is asked for concerns all of them."""
    if caller.session_glob is not None:
        raise Forbidden(
            f"The key is limited to sessions whose id matches {caller.session_glob}.",
            expected="a key for all sessions",
        )


def require_permission(caller: Caller, command: Command, session_id: str | None) -> None:
    """Raise Forbidden unless the caller may send this command, and each one in it if it is a batch."""
    require_session(caller, session_id)
    # Whether an agent holds a task in the session is known only when the command is applied.
    is_agent = caller.has("agent") and session_id is not None and command.session != "none"
    for scope in scopes_of(command):
        if not (is_agent and scope in HELD_SCOPES):
            require_scope(caller, scope)


def _caller_of(name: str, scopes: tuple[Scope, ...], session_glob: str | None, key_hash: str) -> Caller:
    return Caller(source=name, scopes=scopes, session_glob=session_glob, key_hash=key_hash)


def _unknown_key() -> Unauthorized:
    return Unauthorized("The API key is not valid.", code="unknown_key", hint=_HOW_TO_SEND_A_KEY)

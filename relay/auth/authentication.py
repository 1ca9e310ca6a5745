"""Authentication: turns every kind of credential into a Caller, with its scopes. Nothing else reads credentials."""

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
"""ASCII blanks only: bytes of other blanks are also parts of letters."""
SCRAPER = ":metrics"
"""The source of requests with METRICS_KEY: no key can have this name."""


class SignedDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """The facts that a signature covers besides the sender."""

    id: str
    event: str = ""
    """GitHub's name of the event."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated sender."""

    source: str
    scopes: tuple[Scope, ...]
    session_glob: str | None = None
    signed: SignedDelivery | None = None
    """Set for signed requests only; senders with a key choose the delivery id themselves, or leave it out."""
    key_hash: str | None = None
    """Set for keys in the register, which may be revoked while their caller waits."""

    def has(self, scope: Scope) -> bool:
        """Whether the caller has `scope`, or one that includes it."""
        return allows(self.scopes, scope)

    def sees(self, session_id: str | None) -> bool:
        """Whether the key's session pattern matches: `*` is any text, `?` one character."""
        return session_id is None or matches_glob(session_id, self.session_glob)


class Authenticator:
    """Checks credentials against API_KEY, the signing secrets and the key register."""

    def __init__(self, settings: Settings, key_cache: ApiKeyCache) -> None:
        """Raises SettingsError without any credential, or for an invalid secret."""
        self._api_key = settings.api_key.encode()
        self._metrics_key = settings.metrics_key.encode()
        self._first_hash = hash_key(settings.api_key)
        self._first_caller = Caller(source=DEFAULT_SOURCE, scopes=ALL_SCOPES)
        self._key_cache = key_cache
        self._webhook_secrets = webhook_secrets(settings)
        self._github_secrets = github_secrets(settings)
        if not (self._api_key or self._webhook_secrets or self._github_secrets):
            raise SettingsError(
                "Set API_KEY, WEBHOOK_SECRETS or GITHUB_WEBHOOK_SECRET: "
                "without a key or a secret every request would be rejected, so nothing is started."
            )

    def signature_of(self, headers: Headers) -> Signature | None:
        """Returns the request's signature, or None if it has no header of one. A signed request is judged by its
        signature alone, even if it carries a key. Raises Unauthorized for a malformed or expired signature."""
        return read_signature(headers, now=time.time())

    def find_signer(self, signature: Signature, body: bytes) -> Caller:
        """Returns the caller whose secret made the signature over the body. Raises Unauthorized."""
        from_github = isinstance(signature, GithubSignature)
        secret = signature.signer(self._github_secrets if from_github else self._webhook_secrets, body)
        if secret is None:
            raise not_signed_by_us()
        signed = SignedDelivery(id=signature.delivery_id_of(body), event=signature.event)
        return Caller(source=secret.source, scopes=("send",), session_glob=secret.session_glob, signed=signed)

    def authenticate(self, headers: Headers) -> Caller:
        """Returns the caller whose key the headers carry. Raises Unauthorized, Forbidden for a signed request, or
        Unavailable while keys cannot be checked."""
        if self.signature_of(headers) is not None:
            raise Forbidden("A signature authorizes commands only.", expected="an unsigned request with an API key")
        return self.find_key(headers)

    def find_hook(self, token: str) -> Caller:
        """Returns the caller whose token is in the URL. Raises NotFound, or Unavailable while keys are unknown."""
        token = token.strip(BLANKS)
        key_hash = hash_key(token)
        record = self._key_cache.find(key_hash) if token.startswith(HOOK_PREFIX) and has_form_of_key(token) else None
        if record is None or record.scopes != ("hook",):
            raise NotFound("Unknown or revoked hook.", code="unknown_hook")
        return _caller_of(record.name, record.scopes, record.session_glob, key_hash)

    def require_valid(self, caller: Caller) -> None:
        """Raise Unauthorized if the caller's key was revoked since it was authenticated, or Unavailable if that is
        unknown."""
        if caller.key_hash is not None and self._key_cache.find(caller.key_hash) is None:
            raise _unknown_key()

    def find_key(self, headers: Headers) -> Caller:
        """Returns the caller whose key an unsigned request carries. Raises Unauthorized, or Unavailable."""
        given = _key_in(headers)
        if not given:
            raise Unauthorized("The API key is missing.", code="key_missing", hint=_HOW_TO_SEND_A_KEY)
        return self.identify(given)

    def find_scraper(self, headers: Headers) -> Caller | None:
        """Returns the caller without scopes whose request carries METRICS_KEY, or None."""
        given = _key_in(headers).encode("utf-8", "surrogateescape")
        is_scraper = bool(self._metrics_key) and hmac.compare_digest(given, self._metrics_key)
        return Caller(source=SCRAPER, scopes=()) if is_scraper else None

    def find_by_hash(self, key_hash: str) -> Caller:
        """Returns the caller of the valid API key with this hash. Raises Unauthorized, or Unavailable."""
        if self._api_key and hmac.compare_digest(key_hash, self._first_hash):
            return self._first_caller
        record = self._key_cache.find(key_hash)
        if record is None:
            raise _unknown_key()
        return _caller_of(record.name, record.scopes, record.session_glob, key_hash)

    def identify(self, given: str) -> Caller:
        """Returns the caller that a key or an app's token belongs to. Takes the same time for every wrong one. Raises
        Unauthorized, or Unavailable."""
        if self._api_key and hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._api_key):
            return self._first_caller
        if has_form_of_key(given):
            if given.startswith(HOOK_PREFIX):
                raise Unauthorized(
                    "This is a hook's token, not an API key.", hint="Post to /v1/hooks/{token} without a key."
                )
            key_hash = hash_key(given)
            record = self._key_cache.find(key_hash)
            if record is not None and given.startswith((KEY_PREFIX, OAUTH_PREFIX)):
                return _caller_of(record.name, record.scopes, record.session_glob, key_hash)
        raise _unknown_key()


def _key_in(headers: Headers) -> str:
    scheme, _, token = headers.get("authorization", "").strip(BLANKS).partition(" ")
    given = headers.get("x-api-key", "").strip(BLANKS) or (token.strip(BLANKS) if scheme.lower() == "bearer" else "")
    return given.encode("latin-1").decode(errors="surrogateescape")


_HOW_TO_SEND_A_KEY = "Send it in the header X-API-Key, or as Authorization: Bearer KEY."


def require_scope(caller: Caller, scope: Scope) -> None:
    """Raise Forbidden, naming the scope, unless the caller has it."""
    if not caller.has(scope):
        raise Forbidden(f"The key or secret lacks the scope {scope!r}.", expected=f"a key with the scope {scope}")


def require_session(caller: Caller, session_id: str | None) -> None:
    """Raise Forbidden, naming the pattern, unless the key's session pattern matches."""
    if not caller.sees(session_id):
        raise Forbidden(
            "The key or secret has no access to this session.",
            field="session_id",
            expected=f"a session_id that matches {caller.session_glob}",
        )


def require_all_sessions(caller: Caller) -> None:
    """Raise Forbidden if the key is limited to some sessions, for requests that concern all of them."""
    if caller.session_glob is not None:
        raise Forbidden(
            f"The key is limited to sessions whose id matches {caller.session_glob}.",
            expected="a key for all sessions",
        )


def require_permission(caller: Caller, command: Command, session_id: str | None) -> None:
    """Raise Forbidden unless the caller may send this command, and each command of a batch."""
    require_session(caller, session_id)
    # Only when the command is applied is it known whether the agent holds a task in the session.
    is_agent = caller.has("agent") and session_id is not None and command.session != "none"
    for scope in scopes_of(command):
        if not (is_agent and scope in HELD_SCOPES):
            require_scope(caller, scope)


def _caller_of(name: str, scopes: tuple[Scope, ...], session_glob: str | None, key_hash: str) -> Caller:
    return Caller(source=name, scopes=scopes, session_glob=session_glob, key_hash=key_hash)


def _unknown_key() -> Unauthorized:
    return Unauthorized("Invalid API key.", code="unknown_key", hint=_HOW_TO_SEND_A_KEY)

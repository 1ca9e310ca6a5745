"""Who calls and what it may do. All kinds of credentials become a Caller here; nothing else reads them."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from functools import partial

import msgspec
from starlette.datastructures import Headers

from models.commands import COMMANDS, Batch, Command
from models.errors import Forbidden, SettingsError, Unauthorized
from models.settings import Settings
from models.visibility import matches_glob
from models.vocabulary import Scope
from relay.signatures import GithubSignature, Signature, not_signed_by_us, read_signature
from relay.signing_secrets import DEFAULT_SOURCE, github_secrets, webhook_secrets

ALL_SCOPES: tuple[Scope, ...] = ("read", "write", "delegate", "agent", "admin")
GRANTS: dict[Scope, frozenset[Scope]] = {
    "read": frozenset({"read"}),
    "write": frozenset({"read", "write"}),
    "delegate": frozenset({"delegate"}),
    "agent": frozenset({"agent"}),
    "admin": frozenset(ALL_SCOPES),
    "send": frozenset({"write", "delegate"}),
}
"""What each scope allows. `send` is that of signing secrets: changing commands, no deletes, and no reads."""


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

    def has(self, scope: Scope) -> bool:
        """Whether it may do what needs `scope`: admin is all, and who writes may read."""
        return any(scope in GRANTS[granted] for granted in self.scopes)

    def sees(self, session_id: str | None) -> bool:
        """Whether the session is among those that the key is for: `*` is any text, `?` one character."""
        return session_id is None or matches_glob(session_id, self.session_glob)


class Authenticator:
    """Knows the credentials that are valid."""

    def __init__(self, settings: Settings) -> None:
        """Raises SettingsError without any credential, or for secrets that are none."""
        self._api_key = settings.api_key.encode()
        self._webhook_secrets = webhook_secrets(settings)
        self._github_secrets = github_secrets(settings)
        if not (self._api_key or self._webhook_secrets or self._github_secrets):
            raise SettingsError(
                "API_KEY is not set, nor WEBHOOK_SECRETS, nor GITHUB_WEBHOOK_SECRET: "
                "without a key or a secret nobody could be let in, so nothing is started."
            )

    def begin(self, headers: Headers) -> Callable[[bytes], Caller]:
        """Check what the headers show, and give what tells the caller from the body, which both raise Unauthorized.

        A request with any header of a signature is judged by that alone, whatever key it carries.
        """
        signature = read_signature(headers, now=time.time())
        if signature is not None:
            return partial(self._find_signer, signature)
        caller = self._find_key(headers)
        return lambda _: caller

    def authenticate(self, headers: Headers) -> Caller:
        """The caller whose key the headers carry. Raises Unauthorized, or Forbidden for a request that is signed."""
        if read_signature(headers, now=time.time()) is not None:
            raise Forbidden("A signature lets in commands alone.", expected="a request with an API key, and not signed")
        return self._find_key(headers)

    def admit(self, headers: Headers, scope: Scope) -> Caller:
        """The caller, if it has the scope. Raises Unauthorized or Forbidden."""
        caller = self.authenticate(headers)
        require_scope(caller, scope)
        return caller

    def _find_key(self, headers: Headers) -> Caller:
        """Takes the same time for any wrong key."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
        if not given:
            raise Unauthorized("No API key was given.", hint=_HOW_TO_SEND_A_KEY)
        if not hmac.compare_digest(given.encode("latin-1"), self._api_key):
            raise Unauthorized("The API key is not valid.", hint=_HOW_TO_SEND_A_KEY)
        return Caller(source=DEFAULT_SOURCE, scopes=ALL_SCOPES)

    def _find_signer(self, signature: Signature, body: bytes) -> Caller:
        from_github = isinstance(signature, GithubSignature)
        secret = signature.signer(self._github_secrets if from_github else self._webhook_secrets, body)
        if secret is None:
            raise not_signed_by_us()
        signed = SignedDelivery(id=signature.delivery_id_of(body), event=signature.event)
        return Caller(source=secret.source, scopes=("send",), session_glob=secret.session_glob, signed=signed)


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


def require_permission(caller: Caller, command: Command, session_id: str | None) -> None:
    """Raise Forbidden unless the caller may send this command, and each one in it if it is a batch."""
    require_session(caller, session_id)
    if isinstance(command, Batch):
        for name in dict.fromkeys(item.command for item in command.commands):
            require_scope(caller, COMMANDS[name].scope)
    else:
        require_scope(caller, command.scope)

"""Who calls and what it may do. All kinds of credentials become a Caller here; nothing else reads them."""

from __future__ import annotations

import hmac

import msgspec
from starlette.datastructures import Headers

from models.commands import COMMANDS, Batch, Command
from models.errors import Forbidden, SettingsError, Unauthorized
from models.settings import Settings
from models.visibility import matches_glob
from models.vocabulary import Scope

DEFAULT_SOURCE = "default"
"""The name of the key in API_KEY. A delivery id is unique per source, so that a changed key keeps them."""
ALL_SCOPES: tuple[Scope, ...] = ("read", "write", "delegate", "agent", "admin")


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated sender."""

    source: str
    scopes: tuple[Scope, ...]
    session_glob: str | None = None

    def has(self, scope: Scope) -> bool:
        """Whether it may do what needs `scope`: admin is all, and who writes may read."""
        return scope in self.scopes or "admin" in self.scopes or (scope == "read" and "write" in self.scopes)

    def sees(self, session_id: str | None) -> bool:
        """Whether the session is among those that the key is for: `*` is any text, `?` one character."""
        return session_id is None or matches_glob(session_id, self.session_glob)


class Authenticator:
    """Knows the credentials that are valid."""

    def __init__(self, settings: Settings) -> None:
        if not settings.api_key:
            raise SettingsError("API_KEY is not set: without a key nobody could be let in, so nothing is started.")
        self._api_key = settings.api_key.encode()

    def authenticate(self, headers: Headers) -> Caller:
        """The caller whose key the headers carry. Raises Unauthorized. Takes the same time for any wrong key."""
        scheme, _, token = headers.get("authorization", "").partition(" ")
        given = headers.get("x-api-key") or (token.strip() if scheme.lower() == "bearer" else "")
        if not given:
            raise Unauthorized("No API key was given.", hint=_HOW_TO_SEND_A_KEY)
        if not hmac.compare_digest(given.encode("latin-1"), self._api_key):
            raise Unauthorized("The API key is not valid.", hint=_HOW_TO_SEND_A_KEY)
        return Caller(source=DEFAULT_SOURCE, scopes=ALL_SCOPES)

    def admit(self, headers: Headers, scope: Scope) -> Caller:
        """The caller, if it has the scope. Raises Unauthorized or Forbidden."""
        caller = self.authenticate(headers)
        require_scope(caller, scope)
        return caller


_HOW_TO_SEND_A_KEY = "Send it in the header X-API-Key, or as Authorization: Bearer KEY."


def require_scope(caller: Caller, scope: Scope) -> None:
    """Raise Forbidden, naming the scope, unless the caller has it."""
    if not caller.has(scope):
        raise Forbidden(f"The key does not have the scope {scope!r}.", expected=f"a key with the scope {scope}")


def require_session(caller: Caller, session_id: str | None) -> None:
    """Raise Forbidden, naming the pattern, unless the key is for that session."""
    if not caller.sees(session_id):
        raise Forbidden(
            "The key is not for this session.",
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

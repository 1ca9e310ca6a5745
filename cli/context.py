"""The context of one run: the terminal and the backend, which is connected on first use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from cli.backends.selection import BACKENDS, DEFAULT, PROFILE_VARIABLE
from cli.output.terminal import Terminal

if TYPE_CHECKING:
    from agent.http.client import Client
    from sessions.backend import Backend


class CliContext:
    """One run of session-cli."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.terminal = Terminal(environment)
        self.backend_name = ""
        self.data_dir: str | None = None
        self.is_completing = False
        """True while a shell completes a word: then nothing is repeated, nor printed."""
        self._client: Client | None = None
        self._backend: Backend | None = None

    @property
    def profile(self) -> str:
        """The name of the stored login that was asked for."""
        return self.environment.get(PROFILE_VARIABLE, "")

    @profile.setter
    def profile(self, name: str) -> None:
        self.environment = {**self.environment, PROFILE_VARIABLE: name}

    @property
    def uses_relay(self) -> bool:
        """True if the backend is a relay rather than a store."""
        return self._name() == DEFAULT

    @property
    def surroundings(self) -> dict[str, str]:
        """The environment, with `--data-dir` as DATA_DIR."""
        return {**self.environment, **({"DATA_DIR": self.data_dir} if self.data_dir else {})}

    @property
    def backend_choice(self) -> str:
        """The name of the chosen backend. Raises UsageError for an unknown one."""
        return self._name()

    @property
    def backend(self) -> Backend:
        """The backend that holds the sessions. Raises SettingsError if it is not configured."""
        if self._backend is None:
            if self.uses_relay:
                from cli.backends.http_backend import RelayBackend

                self._backend = RelayBackend(self.client)
            else:
                from cli.backends.selection import connect_store

                self._backend = connect_store(self._name(), self.environment, data_dir=self.data_dir)
        return self._backend

    @property
    def client(self) -> Client:
        """The client of the relay, for relay-only commands. Raises UsageError with another backend."""
        if not self.uses_relay:
            raise click.UsageError(f"This command needs a relay; it does not support --backend {self._name()}.")
        if self._client is None:
            from cli.backends.selection import connect_client

            on_retry = self._give_up if self.is_completing else self.terminal.warn
            self._client = connect_client(self.environment, on_retry=on_retry)
        return self._client

    @property
    def key_origin(self) -> str:
        """The source of the key that was sent to the relay; empty if none was sent."""
        if self._client is None:
            return ""
        from cli.configuration import find_login

        return find_login(self.environment).origin

    def close(self) -> None:
        """Close the connections."""
        if self._backend is not None:
            self._backend.close()
        elif self._client is not None:
            self._client.close()

    def _give_up(self, _: str) -> None:
        raise click.Abort

    def _name(self) -> str:
        name = self.backend_name or self.environment.get("STORAGE_BACKEND", "").strip() or DEFAULT
        if name not in BACKENDS:
            raise click.UsageError(f"Invalid STORAGE_BACKEND {name!r}: expected one of {', '.join(BACKENDS)}.")
        return name

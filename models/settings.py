"""Settings of all processes, read once from the environment into a frozen object that is passed down."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Literal

import msgspec

from models.errors import SettingsError
from models.process.capacity import MAX_PROCESSES, usable_processes
from models.process.program import IS_INSTALLED, own_data_dir

Network = IPv4Network | IPv6Network
FOREIGN_PARAMETERS = frozenset(
    {"pgbouncer", "connection_limit", "pool_timeout", "prepared_statements", "statement_cache_size"}
)
"""Parameters that hosting platforms add to a DATABASE_URL for other clients' connection pools. libpq rejects a URL with
them."""
_MAPPED_BITS = 96
"""The prefix length of the network of IPv4-mapped IPv6 addresses, ::ffff:0:0/96."""

LogFormat = Literal["console", "json"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]

PER_CORE = ("relay_processes", "workers")
"""Settings whose default depends on the machine."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings. Each field is the environment variable of the same name in capitals. Where the environment says
    nothing, those in PER_CORE have one process per core."""

    host: str = "127.0.0.1"
    """The address to listen on; empty: all IPv4 and IPv6 addresses."""
    port: int = 8000
    database_url: str = ""
    redis_url: str = ""
    data_dir: str = ".data"
    """The folder of all local data. An installed program has its default in the user's home."""
    public_url: str = ""
    """The URL under which clients reach the relay, such as https://relay.example. Default on Railway: its domain."""
    api_key: str = ""
    """An initial key with all scopes."""
    metrics_key: str = ""
    """A key for `/metrics` alone, which works while Redis is away."""
    webhook_secrets: str = ""
    """Secrets for Standard Webhooks, `name=whsec_…`, separated by commas. A name may be repeated, for rotation."""
    github_webhook_secret: str = ""
    allowed_ips: str = ""
    """Addresses and networks, separated by commas, from which requests are accepted; empty: all."""
    trusted_proxy_header: str = ""
    """The header in which a reverse proxy sends the client's address; empty: no proxy."""
    rate_limit: str = "600/minute"
    """Requests per sender, over all its keys."""
    byte_limit: str = "100000000/minute"
    """Bytes of request bodies per sender."""
    max_body_bytes: int = 1_048_576
    max_backlog: int = 100_000
    """Entries waiting in all shards together; above it, new webhooks get 503."""
    require_durable_redis: bool = False
    """Reject webhooks, instead of only warning, if Redis' settings can lose acknowledged writes."""
    relay_processes: int = 1
    """Processes of one relay. Its limits hold for all of them together."""
    workers: int = 1
    """Worker processes that drain shards, at most one per shard."""
    delivery_retention_days: int = 30
    embeddings: Literal["on", "off"] = "on"
    """Whether search compares meanings, too; `off`: words alone."""
    embeddings_url: str = ""
    """The base URL of an OpenAI-compatible API for embeddings, such as http://localhost:11434/v1. Empty: the model on
    this machine, if it is installed."""
    embeddings_model: str = ""
    """The model to ask for at EMBEDDINGS_URL."""
    embeddings_key: str = ""
    """The API key for EMBEDDINGS_URL."""
    dashboard_host: str = "127.0.0.1"
    dashboard_port: int = 9181
    dashboard_password: str = ""
    log_format: LogFormat = "console"
    log_level: LogLevel = "INFO"
    log_file: str = ""
    """A file that all output of the process is appended to; empty: stderr. It may be renamed at any time."""
    health_dir: str = ""
    """The folder in which one `python -m worker` records its health for `python -m worker.health`; empty: nowhere."""
    otel_exporter_otlp_endpoint: str = ""
    """The base URL of an OpenTelemetry collector (OTLP over HTTP) for traces; empty: none."""
    failpoint_dir: str = ""
    """For tests: a worker at a failpoint with a file of its name in this folder deletes the file and kills itself."""

    def part_of(self, limit: int) -> int:
        """Return the part of a relay's limit that each of its processes may use, at least 1."""
        return max(1, limit // self.relay_processes)


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Parse the environment, or the given mapping. Raises SettingsError with the variable and the expected value."""
    source = os.environ if environment is None else environment
    values = {
        name: source[name.upper()].strip()
        for name in Settings.__struct_fields__
        if source.get(name.upper(), "").strip() or (name == "host" and "HOST" in source)
    }
    if domain := source.get("RAILWAY_PUBLIC_DOMAIN", "").strip():
        values.setdefault("public_url", f"https://{domain}")
    if IS_INSTALLED:
        values.setdefault("data_dir", str(own_data_dir(source)))
    for name in PER_CORE:
        values.setdefault(name, str(usable_processes()))
    for name in ("log_level", "log_format"):
        if name in values:
            values[name] = values[name].upper() if name == "log_level" else values[name].lower()
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        name = path.rstrip("`")
        variable = name.upper() or "the environment"
        if message.startswith(("Expected `int", "Expected `float")):
            message = f"Expected a number, not {values[name][:32]!r}"
        raise SettingsError(f"{variable} is not valid: {message[0].lower()}{message[1:]}.") from error
    _check_range("PORT", settings.port, 0, 65_535)
    _check_range("DASHBOARD_PORT", settings.dashboard_port, 0, 65_535)
    _check_range("RELAY_PROCESSES", settings.relay_processes, 1, MAX_PROCESSES)
    _check_range("WORKERS", settings.workers, 1, MAX_PROCESSES)
    _check_range("MAX_BODY_BYTES", settings.max_body_bytes, 1_024, 64 * 1_048_576)
    _check_range("MAX_BACKLOG", settings.max_backlog, 1, 10**9)
    _check_range("DELIVERY_RETENTION_DAYS", settings.delivery_retention_days, 1, 3_650)
    _check_url("PUBLIC_URL", settings.public_url)
    _check_collector("OTEL_EXPORTER_OTLP_ENDPOINT", settings.otel_exporter_otlp_endpoint)
    parse_networks(settings.allowed_ips)
    _check_header("TRUSTED_PROXY_HEADER", settings.trusted_proxy_header)
    return settings


def parse_networks(allowed_ips: str) -> tuple[Network, ...]:
    """Parse the networks and addresses in ALLOWED_IPS; IPv4-mapped IPv6 becomes IPv4. Raises SettingsError."""
    return tuple(_parse_network(text.strip()) for text in allowed_ips.split(",") if text.strip())


def _parse_network(text: str) -> Network:
    try:
        network = ip_network(text)
    except ValueError as error:
        raise SettingsError(
            f"ALLOWED_IPS is not valid: {text[:64]!r} is neither an address nor a network such as 203.0.113.0/24 or "
            "2001:db8::/32 (with all host bits zero)."
        ) from error
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is not None and network.prefixlen >= _MAPPED_BITS:
        return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


def _check_url(variable: str, url: str) -> None:
    if url and not re.fullmatch(r"https?://[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?/?", url):
        raise SettingsError(f"{variable} is not valid: expected https://host or http://host:port without a path.")


def _check_collector(variable: str, url: str) -> None:
    if url and not re.fullmatch(r"https?://[A-Za-z0-9.\[\]:-]{1,260}(/[!-~]{0,200})?", url):
        raise SettingsError(f"{variable} is not valid: expected a URL such as http://localhost:4318.")


def _check_header(variable: str, name: str) -> None:
    if name and (not re.fullmatch(r"[A-Za-z0-9-]{1,64}", name) or name.lower() == "forwarded"):
        raise SettingsError(
            f"{variable} is not valid: expected the name of a header that contains only addresses, such as X-Real-IP "
            "or X-Forwarded-For."
        )


def sqlalchemy_url(database_url: str) -> str:
    """Adapt a `postgres://` or `postgresql://` URL to our driver, without FOREIGN_PARAMETERS. Raises SettingsError."""
    scheme, separator, rest = database_url.partition("://")
    if not separator or scheme.split("+")[0] not in ("postgres", "postgresql"):
        raise SettingsError("DATABASE_URL is not valid: expected postgresql://user:password@host:port/database.")
    address, question, query = rest.partition("?")
    kept = "&".join(part for part in query.split("&") if part.partition("=")[0] not in FOREIGN_PARAMETERS)
    return f"postgresql+psycopg2://{address}{question if kept else ''}{kept}"


def _check_range(variable: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise SettingsError(f"{variable} is {value}: expected a number from {low:,} to {high:,}.")

"""Define the typed settings with their defaults, one class per section.

Every field has a description, which the JSON Schema shows in editors. Long sections are in
separate modules. `loading` reads files, and `compatibility` handles further keys of the Go router.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from olla.admission.retry_budget import SHARE
from olla.routing.policies import DEFAULT, POLICIES
from olla.settings.access import Access, RateLimits, State, StoreSection
from olla.settings.cors import Cors, checked_hosts
from olla.settings.endpoint import Endpoint, default_name
from olla.settings.routing import Routing
from olla.settings.section import Section, key_error
from olla.settings.surfaces import Surfaces
from olla.settings.values import Duration, Size, lower, one_of

__all__ = ["Settings"]

_IDLE_TIMEOUT = 75.0


class RequestLimits(Section):
    """Size limits of requests."""

    max_body_size: Annotated[Size, Field(ge=1)] = 100 * 1024 * 1024
    """Maximum size of a request body. Blob uploads are streamed and not limited."""
    max_buffered_size: Annotated[Size, Field(ge=1)] = 1024 * 1024 * 1024
    """Memory for the received parts of all request bodies; bodies below 64 KB do not count. When
    it is full, requests get 503. One caller may use a quarter of it, or max_body_size if that is
    more, and then gets 429."""
    max_header_size: Annotated[Size, Field(ge=1024)] = 1024 * 1024
    """Maximum size of a request head."""


class Server(Section):
    """The address that clients connect to, and limits on their connections."""

    host: str = "localhost"
    """Address or name of the interface to listen on; 0.0.0.0 for all."""
    port: Annotated[int, Field(ge=0, le=65535)] = 40114
    """Port to listen on; 0 picks a free port."""
    idle_timeout: Duration = _IDLE_TIMEOUT
    """How long a client's connection may be idle between requests; 0 means the default."""
    read_header_timeout: Annotated[Duration, Field(gt=0)] = 30.0
    """Time limit for a request head, from its first byte."""
    read_timeout: Annotated[Duration, Field(gt=0)] = 60.0
    """How long a client may pause while it sends a request body."""
    body_timeout: Annotated[Duration, Field(gt=0)] = 60.0
    """How long a body may arrive slower than min_rate. Each min_rate bytes received extend this
    by one second, up to the full time again."""
    send_timeout: Annotated[Duration, Field(gt=0)] = 60.0
    """How long a client may take to read the data sent to it. Each min_rate bytes it reads extend
    this by one second. After that its connection is closed and its slot freed."""
    min_rate: Annotated[Size, Field(ge=1)] = 500
    """Minimum transfer rate of a client, in bytes per second."""
    max_connections: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of client connections; further ones get 503. Defaults to half of the
    process's limit on open files."""
    shutdown_timeout: Duration = 10.0
    """How long running requests may continue after SIGTERM."""
    allowed_hosts: tuple[str, ...] = ()
    """Host names (without port) accepted in addition to local ones while olla listens on loopback
    only. *.example.com matches all subdomains, a lone * every name."""
    cors: Cors = Cors()
    request_limits: RequestLimits = RequestLimits()
    rate_limits: RateLimits = RateLimits()
    fast_path: Literal["auto", "off"] = "auto"
    """Parse plain inference requests without the HTTP library: auto (if the library has the
    expected structure) or off. Requests are handled the same either way."""

    @field_validator("fast_path", mode="before")
    @classmethod
    def _off_is_a_string(cls, value: object) -> object:
        return "off" if value is False else value  # YAML parses a bare off as false

    @field_validator("allowed_hosts")
    @classmethod
    def _valid_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return checked_hosts(value)

    @field_validator("host")
    @classmethod
    def _valid_host(cls, value: str) -> str:
        host = value.strip().removeprefix("[").removesuffix("]")
        if not host or not host.isascii() or any(character in "/ @" for character in host):
            raise ValueError(
                f"'{value}' is not a valid host; write localhost, 0.0.0.0 for all, or a name"
            )
        return host

    @field_validator("idle_timeout")
    @classmethod
    def _zero_is_default(cls, value: float) -> float:
        # In the Go router's files 0 means the default. Taken literally, it would close every
        # connection after its first request.
        return value or _IDLE_TIMEOUT


class Proxy(Section):
    """Routing and relaying of requests."""

    load_balancer: str = DEFAULT
    """Policy that picks among the endpoints that have the model."""
    connection_timeout: Annotated[Duration, Field(gt=0)] = 10.0
    """Time limit for connecting to an endpoint: DNS lookup, TCP and TLS together."""
    connection_keep_alive: Duration = 90.0
    """How long an idle connection to an endpoint is kept open."""
    response_header_timeout: Duration = 600.0
    """Time limit from the request to the first byte of the response (Ollama sends none before its
    first token). If the model may have to be loaded, the limit is extended by the same time, or
    by three times the expected load time if that is longer. 0: no limit."""
    read_timeout: Duration = 600.0
    """Time limit for the silence between two chunks of a response. 0: no limit."""
    response_timeout: Duration = 0.0
    """Time limit for a whole response. 0: no limit."""
    wait_keepalive: Duration = 0.0
    """While a client waits for a stream of the OpenAI or Anthropic API, send an SSE comment this
    often, so that proxies in between keep the connection open. 0: never."""
    retry_budget: Annotated[float, Field(ge=0, le=1)] = SHARE
    """Share of live traffic that may be retried on another endpoint after one has started
    processing it. If the connection failed, another endpoint is always tried."""

    @field_validator("load_balancer")
    @classmethod
    def _known_policy(cls, value: str) -> str:
        name = value.strip().lower().replace("_", "-")
        if name == "least-conn":  # the name in early files of the Go router
            name = "least-connections"
        return one_of(sorted(POLICIES), name, "load balancer")


class ModelDiscovery(Section):
    """Discovery of the models of each endpoint."""

    interval: Annotated[Duration, Field(ge=1)] = 30.0
    """How often an endpoint's list of models is read."""


def _named(endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    if not endpoints:
        raise ValueError("list at least one endpoint, or omit the key for the default")
    return tuple(
        each if each.name else each.model_copy(update={"name": default_name(at)})
        for at, each in enumerate(endpoints)
    )


class Static(Section):
    """Endpoints listed in this file."""

    endpoints: Annotated[tuple[Endpoint, ...], AfterValidator(_named)] = (
        Endpoint(url="http://localhost:11434", name="local-ollama"),
    )


class Discovery(Section):
    """Discovery of endpoints and their models."""

    type: Annotated[Literal["static"], BeforeValidator(lower)] = "static"
    """How endpoints are found; static: they are listed in this file."""
    model_discovery: ModelDiscovery = ModelDiscovery()
    static: Static = Static()


class StrategyOptions(Section):
    """Options of the routing strategies."""

    fallback_behavior: Annotated[
        Literal["compatible_only", "all", "none"], BeforeValidator(lower)
    ] = "compatible_only"
    """For optimistic, requests for a model that no endpoint lists: all forwards them to any
    endpoint, none and compatible_only reject them."""
    discovery_timeout: Duration = 2.0
    """How long the endpoints may take to list their models again before a missing model is
    reported as not found."""


class RoutingStrategy(Section):
    """Handling of requests for a model that no endpoint lists."""

    type: Annotated[Literal["strict", "optimistic", "discovery"], BeforeValidator(lower)] = "strict"
    """strict and discovery reject the request after the endpoints have listed their models again;
    optimistic follows fallback_behavior."""
    options: StrategyOptions = StrategyOptions()


class ModelRegistry(Section):
    """Routing of models across endpoints."""

    routing_strategy: RoutingStrategy = RoutingStrategy()


class Logging(Section):
    """Logs of the router and its requests."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Minimum severity of logged events."""
    format: Annotated[Literal["json", "text"], BeforeValidator(lower)] = "json"
    """json: one object per line; text: readable lines."""
    output: Annotated[Literal["stdout", "stderr"], BeforeValidator(lower)] = "stdout"
    """Stream that logs are written to."""

    @field_validator("level", mode="before")
    @classmethod
    def _warn(cls, value: Any) -> Any:
        level = lower(value)
        return "warning" if level == "warn" else level


class Settings(Section):
    """All settings."""

    server: Server = Server()
    proxy: Proxy = Proxy()
    routing: Routing = Routing()
    discovery: Discovery = Discovery()
    model_registry: ModelRegistry = ModelRegistry()
    model_aliases: dict[str, tuple[str, ...]] = Field(default={})
    """Other names for models. The first listed model that an endpoint has is used."""
    logging: Logging = Logging()
    access: Access = Access()
    store: StoreSection = StoreSection()
    state: State = State()
    surfaces: Surfaces = Surfaces()

    @field_validator("model_aliases")
    @classmethod
    def _nonempty_aliases(cls, value: dict[str, tuple[str, ...]]) -> Any:
        for alias, names in value.items():
            if not names:
                raise key_error(alias, "an alias needs at least one model; list one or remove it")
        return value

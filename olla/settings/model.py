"""The typed settings: what a configuration file may say, and what holds when it does not.

One class a section; every field has a description, which the JSON Schema shows to editors. Long
sections have files of their own. Reading files is `loading`'s business, what files of the Go
router may say besides is in `foreign`.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from olla.admission.retry_budget import SHARE
from olla.routing.policies import DEFAULT, POLICIES
from olla.settings.access import Access, RateLimits, State, StoreSection
from olla.settings.cors import Cors, checked_hosts
from olla.settings.endpoint import Endpoint, default_name
from olla.settings.routing import Routing
from olla.settings.section import Section, about_key
from olla.settings.surfaces import Surfaces
from olla.settings.values import Duration, Size, lower, one_of

__all__ = ["Settings"]

_IDLE_TIMEOUT = 75.0


class RequestLimits(Section):
    """How large a request may be."""

    max_body_size: Annotated[Size, Field(ge=1)] = 100 * 1024 * 1024
    """Longest request body. Blob uploads are streamed and not bound by it."""
    max_buffered_size: Annotated[Size, Field(ge=1)] = 1024 * 1024 * 1024
    """Memory for request bodies, all together, as far as they have arrived; bodies below 64 KB do
    not count. Beyond it a request gets 503. One caller may hold a quarter, or one longest body if
    that is more; beyond it gets 429."""
    max_header_size: Annotated[Size, Field(ge=1024)] = 1024 * 1024
    """Longest request head."""


class Server(Section):
    """The address clients use."""

    host: str = "localhost"
    """Address or name of the interface to listen on; 0.0.0.0 for all."""
    port: Annotated[int, Field(ge=0, le=65535)] = 40114
    """Port to listen on; 0 for any free one."""
    idle_timeout: Duration = _IDLE_TIMEOUT
    """How long a client's connection may be silent between requests; 0 for the default."""
    read_header_timeout: Annotated[Duration, Field(gt=0)] = 30.0
    """How long the head of a request may take to come, from its first byte."""
    read_timeout: Annotated[Duration, Field(gt=0)] = 60.0
    """How long a client may be silent in the middle of its request's body."""
    body_timeout: Annotated[Duration, Field(gt=0)] = 60.0
    """How long a body may come at less than min_rate: each min_rate bytes give a second more, up
    to the whole time again."""
    send_timeout: Annotated[Duration, Field(gt=0)] = 60.0
    """How long a client may take to read what was sent to it, before its connection is closed and
    its slot freed; a second more for each min_rate bytes that it does read."""
    min_rate: Annotated[Size, Field(ge=1)] = 500
    """The least rate of a client that keeps being served, in bytes a second."""
    max_connections: Annotated[int, Field(ge=1)] | None = None
    """How many clients may be connected; one more gets 503. By default half of the files that the
    process may have open."""
    shutdown_timeout: Duration = 10.0
    """How long running requests may go on after SIGTERM."""
    allowed_hosts: tuple[str, ...] = ()
    """While only loopback is listened on: names in a request's Host, without port, that are
    accepted besides local ones. *.example.com covers all names below it, a lone * every name."""
    cors: Cors = Cors()
    request_limits: RequestLimits = RequestLimits()
    rate_limits: RateLimits = RateLimits()
    fast_path: Literal["auto", "off"] = "auto"
    """Whether plain inference requests are taken in by a shorter way than the HTTP library's:
    auto where the library is as expected, or off. What becomes of a request is the same."""

    @field_validator("fast_path", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: object) -> object:
        return "off" if value is False else value  # YAML reads a bare off as false

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return checked_hosts(value)

    @field_validator("host")
    @classmethod
    def _one_host(cls, value: str) -> str:
        host = value.strip().removeprefix("[").removesuffix("]")
        if not host or not host.isascii() or any(character in "/ @" for character in host):
            raise ValueError(f"'{value}' is no host; write localhost, 0.0.0.0 for all, or a name")
        return host

    @field_validator("idle_timeout")
    @classmethod
    def _some_idleness(cls, value: float) -> float:
        # In the Go router's files 0 stands for its default; taken literally, every connection
        # would be closed after its first request.
        return value or _IDLE_TIMEOUT


class Proxy(Section):
    """How requests are routed and relayed."""

    load_balancer: str = DEFAULT
    """Policy that picks among the endpoints that have the model."""
    connection_timeout: Annotated[Duration, Field(gt=0)] = 10.0
    """Connecting to an endpoint: name lookup, TCP and TLS together."""
    connection_keep_alive: Duration = 90.0
    """How long an idle connection to an endpoint is kept."""
    response_header_timeout: Duration = 600.0
    """From the request to the first byte of the answer (Ollama sends none before its first
    token). As long again where the model may have to be loaded, or three times its expected load
    if that is longer. 0: no limit."""
    read_timeout: Duration = 600.0
    """Silence between two pieces of an answer. 0: no limit."""
    response_timeout: Duration = 0.0
    """A whole answer. 0: no limit."""
    wait_keepalive: Duration = 0.0
    """While a stream of the OpenAI or Anthropic API is waited for, send a comment this often, so
    that nobody in between takes the connection for dead. 0: never."""
    retry_budget: Annotated[float, Field(ge=0, le=1)] = SHARE
    """Share of live traffic that may be tried on another endpoint after one has begun to work on
    it. Where the connection was never made, another is always tried."""

    @field_validator("load_balancer")
    @classmethod
    def _known_policy(cls, value: str) -> str:
        name = value.strip().lower().replace("_", "-")
        if name == "least-conn":  # as the Go router's first files have it
            name = "least-connections"
        return one_of(sorted(POLICIES), name, "load balancer")


class ModelDiscovery(Section):
    """How olla learns which models an endpoint has."""

    interval: Annotated[Duration, Field(ge=1)] = 30.0
    """How often an endpoint's list of models is read."""


def _some(endpoints: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    if not endpoints:
        raise ValueError("name at least one endpoint, or leave the key out for the default")
    return tuple(
        each if each.name else each.model_copy(update={"name": default_name(at)})
        for at, each in enumerate(endpoints)
    )


class Static(Section):
    """Endpoints named in this file."""

    endpoints: Annotated[tuple[Endpoint, ...], AfterValidator(_some)] = (
        Endpoint(url="http://localhost:11434", name="local-ollama"),
    )


class Discovery(Section):
    """Where the endpoints are."""

    type: Annotated[Literal["static"], BeforeValidator(lower)] = "static"
    """How endpoints are found: they are named here."""
    model_discovery: ModelDiscovery = ModelDiscovery()
    static: Static = Static()


class StrategyOptions(Section):
    """What the strategies may do."""

    fallback_behavior: Annotated[
        Literal["compatible_only", "all", "none"], BeforeValidator(lower)
    ] = "compatible_only"
    """For optimistic: where a model that no endpoint lists goes."""
    discovery_timeout: Duration = 2.0
    """How long the endpoints may take to list their models again, before a model that none of
    them listed is called not found."""


class RoutingStrategy(Section):
    """What happens to a model that no endpoint lists."""

    type: Annotated[Literal["strict", "optimistic", "discovery"], BeforeValidator(lower)] = "strict"
    """strict and discovery refuse, once the endpoints were asked again; optimistic may fall
    back."""
    options: StrategyOptions = StrategyOptions()


class ModelRegistry(Section):
    """Models across endpoints."""

    routing_strategy: RoutingStrategy = RoutingStrategy()


class Logging(Section):
    """What olla writes about itself and about requests."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """From which severity on."""
    format: Annotated[Literal["json", "text"], BeforeValidator(lower)] = "json"
    """One JSON object a line, or lines for people."""
    output: Annotated[Literal["stdout", "stderr"], BeforeValidator(lower)] = "stdout"
    """Where to."""

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
    """Other names for models: the first of the listed names that an endpoint has is used."""
    logging: Logging = Logging()
    access: Access = Access()
    store: StoreSection = StoreSection()
    state: State = State()
    surfaces: Surfaces = Surfaces()

    @field_validator("model_aliases")
    @classmethod
    def _aliases_lead_somewhere(cls, value: dict[str, tuple[str, ...]]) -> Any:
        for alias, names in value.items():
            if not names:
                raise about_key(alias, "an alias needs at least one model")
        return value

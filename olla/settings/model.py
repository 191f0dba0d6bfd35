"""The typed settings: what a configuration file may say, and what holds when it does not.

One class a section; every field has a description, which the JSON Schema shows to editors.
Reading files is `loading`'s business, what Olla files may say besides is in `foreign`.
"""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from olla.fleet.profiles import ALIASES, AUTO, PROFILES
from olla.routing.policies import DEFAULT, POLICIES
from olla.settings.values import Duration, Size, one_of

__all__ = ["Auth", "Endpoint", "Settings"]


class Section(BaseModel):
    """A part of the file. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class RequestLimits(Section):
    """How large a request may be."""

    max_body_size: Size = 100 * 1024 * 1024
    """Longest request body. Blob uploads are streamed and not bound by it."""
    max_header_size: Annotated[Size, Field(ge=1024)] = 1024 * 1024
    """Longest request head."""


class Server(Section):
    """The address clients use."""

    host: str = "localhost"
    """Interface to listen on; 0.0.0.0 for all."""
    port: Annotated[int, Field(ge=0, le=65535)] = 40114
    """Port to listen on; 0 for any free one."""
    idle_timeout: Duration = 75.0
    """How long a client's connection may be silent between requests."""
    shutdown_timeout: Duration = 10.0
    """How long running requests may go on after SIGTERM."""
    request_limits: RequestLimits = RequestLimits()


class Proxy(Section):
    """How requests are routed and relayed."""

    load_balancer: str = DEFAULT
    """Policy that picks among the endpoints that have the model."""
    connection_timeout: Duration = 10.0
    """Connecting to an endpoint: name lookup, TCP and TLS together."""
    connection_keep_alive: Duration = 90.0
    """How long an idle connection to an endpoint is kept."""
    response_header_timeout: Duration = 600.0
    """From the request to the first byte of the answer (Ollama sends none before its first
    token). Ten minutes more where the model may have to be loaded. 0: no limit."""
    read_timeout: Duration = 600.0
    """Silence between two pieces of an answer. 0: no limit."""
    response_timeout: Duration = 0.0
    """A whole answer. 0: no limit."""

    @field_validator("load_balancer")
    @classmethod
    def _known_policy(cls, value: str) -> str:
        return one_of(sorted(POLICIES), value, "load balancer")


class ModelDiscovery(Section):
    """How olla learns which models an endpoint has."""

    interval: Annotated[Duration, Field(ge=1)] = 30.0
    """How often an endpoint's list of models is read."""


class Filter(Section):
    """Which of an endpoint's models are used; globs, `exclude` wins."""

    include: tuple[str, ...] = ()
    """Only models that match one of these; empty is all."""
    exclude: tuple[str, ...] = ()
    """No model that matches one of these."""


class Auth(Section):
    """What olla shows to an endpoint. Each value may come from a file (`…_file`)."""

    type: Literal["bearer", "api_key", "basic"]
    """How it is shown."""
    token: str | None = None
    """For bearer."""
    token_file: str | None = None
    """For bearer: the file that holds it."""
    key: str | None = None
    """For api_key."""
    key_file: str | None = None
    """For api_key: the file that holds it."""
    header: str = "X-Api-Key"
    """For api_key: the header it goes into."""
    username: str | None = None
    """For basic."""
    username_file: str | None = None
    """For basic: the file that holds it."""
    password: str | None = None
    """For basic."""
    password_file: str | None = None
    """For basic: the file that holds it."""

    @model_validator(mode="after")
    def _complete(self) -> "Auth":
        needed = {"bearer": ["token"], "api_key": ["key"], "basic": ["username", "password"]}
        for name in needed[self.type]:
            given = [getattr(self, name), getattr(self, f"{name}_file")]
            if sum(each is not None for each in given) != 1:
                raise ValueError(f"auth of type {self.type} needs either {name} or {name}_file")
        return self


class Endpoint(Section):
    """One backend server."""

    url: str
    """Where it is, such as http://gpu-1:11434; a path is kept before every request's."""
    name: str = ""
    """Its name in headers, logs and metrics; host and port when left out."""
    type: str = AUTO
    """Kind of server; auto finds out."""
    priority: Annotated[int, Field(ge=0)] = 100
    """Higher is preferred."""
    check_interval: Annotated[Duration, Field(ge=0.1)] = 5.0
    """How often it is asked how it is and what it has in memory."""
    check_timeout: Annotated[Duration, Field(gt=0, le=60)] | None = None
    """How long an answer to that may take; 2s, or half of check_interval where that is less, when
    left out."""
    num_parallel: Annotated[int, Field(ge=1)] | None = None
    """Requests at a time per loaded model (its OLLAMA_NUM_PARALLEL); 1 for Ollama when left
    out."""
    health_check_url: str | None = None
    """Path that tells whether it lives; the type's own when left out."""
    model_url: str | None = None
    """Path that lists its models; the type's own when left out."""
    model_filter: Filter = Filter()
    auth: Auth | None = None
    headers: dict[str, str] = {}
    """Header fields added to every request to it."""
    forward_authorization: bool = False
    """Pass the client's own Authorization, X-API-Key and Cookie on to it."""

    @field_validator("url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            port = parts.port
        except ValueError as error:
            raise ValueError(f"'{value}' is no URL: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"'{value}' must look like http://host:11434 or https://host/path")
        if parts.username or parts.password:
            raise ValueError("credentials do not belong in a URL; use auth")
        if parts.query or parts.fragment or port == 0:
            raise ValueError(f"'{value}' must be a scheme, a host, a port and perhaps a path")
        return value

    @field_validator("type")
    @classmethod
    def _known_type(cls, value: str) -> str:
        key = value.strip().lower()
        return one_of(sorted([AUTO, *PROFILES]), ALIASES.get(key, key), "type of endpoint")

    @field_validator("health_check_url", "model_url")
    @classmethod
    def _path_only(cls, value: str | None) -> str | None:
        if value is None:
            return None
        path = urlsplit(value).path if "://" in value else value
        if not path.startswith("/"):
            raise ValueError(f"'{value}' must be a path that begins with a slash")
        return path

    @field_validator("headers")
    @classmethod
    def _one_line(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"'{name}' is no header name")
            if any(ord(character) < 32 or ord(character) > 126 for character in text):
                raise ValueError(f"the value of header '{name}' must be printable ASCII")
        return value

    @model_validator(mode="after")
    def _times_fit(self) -> "Endpoint":
        if self.check_timeout is not None and self.check_timeout >= self.check_interval:
            raise ValueError("check_timeout must be shorter than check_interval")
        return self

    @property
    def shown_name(self) -> str:
        """Its name, or what stands for it."""
        return self.name or urlsplit(self.url).netloc


class Static(Section):
    """Endpoints named in this file."""

    endpoints: tuple[Endpoint, ...] = (Endpoint(url="http://localhost:11434", name="local-ollama"),)


class Discovery(Section):
    """Where the endpoints are."""

    type: Literal["static"] = "static"
    """How endpoints are found: they are named here."""
    model_discovery: ModelDiscovery = ModelDiscovery()
    static: Static = Static()


class StrategyOptions(Section):
    """What the strategies may do."""

    fallback_behavior: Literal["compatible_only", "all", "none"] = "compatible_only"
    """For optimistic: where a model that no endpoint lists goes."""
    discovery_timeout: Duration = 2.0
    """How long the endpoints may take to list their models again, before a model that none of
    them listed is called not found."""


class RoutingStrategy(Section):
    """What happens to a model that no endpoint lists."""

    type: Literal["strict", "optimistic", "discovery"] = "strict"
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
    format: Literal["json", "text"] = "json"
    """One JSON object a line, or lines for people."""
    output: Literal["stdout", "stderr"] = "stdout"
    """Where to."""

    @field_validator("level", mode="before")
    @classmethod
    def _warn(cls, value: Any) -> Any:
        return "warning" if value == "warn" else value


class Root(Section):
    """`/api/*` and `/v1/*` without a prefix."""

    enabled: bool = True
    """Serve them as /olla/ollama/ is served, for clients that cannot take a prefix."""


class Surfaces(Section):
    """What olla serves besides the prefixed paths."""

    root: Root = Root()


class Settings(Section):
    """All settings."""

    server: Server = Server()
    proxy: Proxy = Proxy()
    discovery: Discovery = Discovery()
    model_registry: ModelRegistry = ModelRegistry()
    model_aliases: dict[str, tuple[str, ...]] = {}
    """Other names for models: the first of the listed names that an endpoint has is used."""
    logging: Logging = Logging()
    surfaces: Surfaces = Surfaces()

    @field_validator("model_aliases")
    @classmethod
    def _aliases_lead_somewhere(cls, value: dict[str, tuple[str, ...]]) -> Any:
        for alias, names in value.items():
            if not names:
                raise ValueError(f"alias '{alias}' needs at least one model")
        return value

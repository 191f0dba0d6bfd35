"""Define the settings of one endpoint. `endpoint_specs` converts them for the fleet."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from olla.fleet.profiles import ALIASES, AUTO, PROFILES
from olla.settings.endpoint_url import read_address, read_path
from olla.settings.section import Section, key_error
from olla.settings.values import Duration, Rate, Size, lower, one_of

__all__ = ["Auth", "Endpoint", "Filter", "default_name"]

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t -~]*")
_RESERVED = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers for framing or routing: setting them would break the request."""
_AUTH_HEADER = "authorization"


def _header_name(name: str) -> str:
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(
            f"'{name}' is not a valid header name; use letters, digits and dashes only"
        )
    if name.lower() in _RESERVED:
        raise ValueError(f"the header {name} is set by olla; remove it")
    return name


def _header_value(value: str) -> str:
    if not _HEADER_VALUE.fullmatch(value):
        raise ValueError("a header value must be printable ASCII on one line")
    return value


HeaderName = Annotated[str, AfterValidator(_header_name)]
HeaderValue = Annotated[str, AfterValidator(_header_value)]


def default_name(at: int) -> str:
    """Return the default name of the endpoint at an index of the list (from 0)."""
    return f"endpoint-{at + 1}"


class Filter(Section):
    """Selects the models of an endpoint by globs; `exclude` takes precedence."""

    include: tuple[str, ...] = ()
    """Use only models that match one of these globs; empty means all."""
    exclude: tuple[str, ...] = ()
    """Do not use models that match one of these globs."""


class Auth(Section):
    """Credentials that olla sends to an endpoint. Each may be read from a file (`…_file`)."""

    type: Annotated[Literal["bearer", "api_key", "basic"], BeforeValidator(lower)]
    """Authentication scheme."""
    token: str | None = Field(default=None, repr=False)
    """Token for bearer."""
    token_file: str | None = None
    """File with the token for bearer, relative to olla's working directory."""
    key: str | None = Field(default=None, repr=False)
    """Key for api_key."""
    key_file: str | None = None
    """File with the key for api_key."""
    header: HeaderName = "X-Api-Key"
    """Header that carries the key for api_key."""
    username: str | None = None
    """User name for basic."""
    username_file: str | None = None
    """File with the user name for basic."""
    password: str | None = Field(default=None, repr=False)
    """Password for basic."""
    password_file: str | None = None
    """File with the password for basic."""

    @field_validator("token", "key", "username", "password")
    @classmethod
    def _on_one_line(cls, value: str | None) -> str | None:
        if value is not None and (not value.strip() or not value.isprintable()):
            raise ValueError("this must be one line of printable text, and not empty")
        return value

    @model_validator(mode="after")
    def _complete(self) -> "Auth":
        needed = {"bearer": ["token"], "api_key": ["key"], "basic": ["username", "password"]}
        for name in needed[self.type]:
            given = [getattr(self, name), getattr(self, f"{name}_file")]
            if sum(each is not None for each in given) != 1:
                raise key_error(name, f"auth type {self.type} needs either {name} or {name}_file")
        for name in ("token", "key"):
            value = getattr(self, name)
            if value is not None and not value.isascii():
                raise key_error(name, "this is sent in a header, so it must be ASCII")
        if self.type == "basic" and ":" in (self.username or ""):
            raise key_error(
                "username", "a user name cannot contain a colon: in basic auth it ends there"
            )
        return self


class Endpoint(Section):
    """One backend server."""

    url: str
    """Address, such as http://gpu-1:11434. A path is prepended to the path of each request."""
    name: str = ""
    """Name in headers, logs and metrics. Defaults to endpoint-1, endpoint-2, … by position in
    the list. Callers see names; only admins see addresses."""
    type: str = AUTO
    """Server type; auto detects it."""
    priority: Annotated[int, Field(ge=0)] = 100
    """Endpoints with higher values are preferred."""
    check_interval: Annotated[Duration, Field(ge=0.1)] = 5.0
    """How often the health and the loaded models are probed."""
    check_timeout: Annotated[Duration, Field(gt=0, le=60)] | None = None
    """Time limit for a probe. Defaults to 2s, or to half of check_interval if that is less."""
    num_parallel: Annotated[int, Field(ge=1)] | None = None
    """Concurrent requests per loaded model (OLLAMA_NUM_PARALLEL of the server); learned if
    omitted."""
    vram: Annotated[Size, Field(ge=1)] | None = None
    """Memory for models, such as 24GB; learned if omitted."""
    max_loaded_models: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of loaded models (OLLAMA_MAX_LOADED_MODELS of the server); learned if
    omitted, starting at 3."""
    load_bandwidth: Annotated[Rate, Field(ge=1)] | None = None
    """Initial estimate of how fast models load from disk, in bytes per second, such as 2GB/s (or
    2GB). Corrected by measurement."""
    health_check_url: str | None = None
    """Path of the health check, or a URL below the endpoint's; defaults to that of the type."""
    model_url: str | None = None
    """Path of the model list, or a URL below the endpoint's; defaults to that of the type."""
    model_filter: Filter = Filter()
    auth: Auth | None = None
    headers: dict[HeaderName, HeaderValue] = Field(default={}, repr=False)
    """Headers added to every request to the endpoint."""
    translation: Literal["auto", "off"] = "auto"
    """Whether requests in dialects that the endpoint does not speak are translated."""
    forward_authorization: bool = False
    """Forward the client's Authorization, X-API-Key and Cookie headers to the endpoint."""

    @field_validator("url")
    @classmethod
    def _valid_url(cls, value: str) -> str:
        read_address(value)
        return value

    @field_validator("name")
    @classmethod
    def _valid_name(cls, value: str) -> str:
        if len(value) > 100 or not value.isprintable() or value != value.strip():
            raise ValueError(f"{value[:100]!r} must be at most 100 printable characters")
        return value

    @field_validator("type")
    @classmethod
    def _known_type(cls, value: str) -> str:
        key = value.strip().lower()
        return one_of(sorted([AUTO, *PROFILES]), ALIASES.get(key, key), "endpoint type")

    @model_validator(mode="after")
    def _fits_together(self) -> "Endpoint":
        if self.check_timeout is not None and self.check_timeout >= self.check_interval:
            raise key_error("check_timeout", "check_timeout must be shorter than check_interval")
        address = read_address(self.url)
        for key in ("health_check_url", "model_url"):
            text = getattr(self, key)
            try:
                if text is not None:
                    read_path(text, address)
            except ValueError as error:
                raise key_error(key, str(error)) from None
        names = [name.lower() for name in self.headers]
        if self.auth is not None:
            names.append(self.auth.header.lower() if self.auth.type == "api_key" else _AUTH_HEADER)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise key_error(
                "headers", f"the header {twice[0]} is set twice, counting auth; remove one"
            )
        return self

    @property
    def effective_check_timeout(self) -> float:
        """`check_timeout` in seconds, with the default applied."""
        if self.check_timeout is not None:
            return self.check_timeout
        return min(2.0, self.check_interval / 2)

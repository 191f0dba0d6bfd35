"""What a file may say of one endpoint.

What the fleet makes of it is in `specs`.
"""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from olla.fleet.profiles import ALIASES, AUTO, PROFILES
from olla.settings.endpoint_url import read_address, read_path
from olla.settings.section import Section, about_key
from olla.settings.values import Duration, Rate, Size, lower, one_of

__all__ = ["Auth", "Endpoint", "Filter", "default_name"]

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t -~]*")
_OURS = frozenset(
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
"""Headers that say where a message ends or where it goes: setting them would break it."""
_BY_AUTH = "authorization"


def _header_name(name: str) -> str:
    if not _HEADER_NAME.fullmatch(name):
        raise ValueError(f"'{name}' is no header name; write letters, digits and dashes")
    if name.lower() in _OURS:
        raise ValueError(f"olla sets the header {name} itself; leave it out")
    return name


def _header_value(value: str) -> str:
    if not _HEADER_VALUE.fullmatch(value):
        raise ValueError("a header's value must be printable ASCII, on one line")
    return value


HeaderName = Annotated[str, AfterValidator(_header_name)]
HeaderValue = Annotated[str, AfterValidator(_header_value)]


def default_name(at: int) -> str:
    """The name of an endpoint that was given none, by its place in the list (from 0)."""
    return f"endpoint-{at + 1}"


class Filter(Section):
    """Which of an endpoint's models are used; globs, `exclude` wins."""

    include: tuple[str, ...] = ()
    """Only models that match one of these; empty is all."""
    exclude: tuple[str, ...] = ()
    """No model that matches one of these."""


class Auth(Section):
    """What olla shows to an endpoint. Each value may come from a file (`…_file`)."""

    type: Annotated[Literal["bearer", "api_key", "basic"], BeforeValidator(lower)]
    """How it is shown."""
    token: str | None = Field(default=None, repr=False)
    """For bearer."""
    token_file: str | None = None
    """For bearer: the file that holds it, seen from where olla was started."""
    key: str | None = Field(default=None, repr=False)
    """For api_key."""
    key_file: str | None = None
    """For api_key: the file that holds it."""
    header: HeaderName = "X-Api-Key"
    """For api_key: the header it goes into."""
    username: str | None = None
    """For basic."""
    username_file: str | None = None
    """For basic: the file that holds it."""
    password: str | None = Field(default=None, repr=False)
    """For basic."""
    password_file: str | None = None
    """For basic: the file that holds it."""

    @field_validator("token", "key", "username", "password")
    @classmethod
    def _on_one_line(cls, value: str | None) -> str | None:
        if value is not None and (not value.strip() or not value.isprintable()):
            raise ValueError("this must be one line of text, and not empty")
        return value

    @model_validator(mode="after")
    def _complete(self) -> "Auth":
        needed = {"bearer": ["token"], "api_key": ["key"], "basic": ["username", "password"]}
        for name in needed[self.type]:
            given = [getattr(self, name), getattr(self, f"{name}_file")]
            if sum(each is not None for each in given) != 1:
                raise about_key(
                    name, f"auth of type {self.type} needs either {name} or {name}_file"
                )
        for name in ("token", "key"):
            value = getattr(self, name)
            if value is not None and not value.isascii():
                raise about_key(name, "this goes into a header, and must be ASCII")
        if self.type == "basic" and ":" in (self.username or ""):
            raise about_key("username", "a user name has no colon: it ends there")
        return self


class Endpoint(Section):
    """One backend server."""

    url: str
    """Where it is, such as http://gpu-1:11434; a path is kept before every request's."""
    name: str = ""
    """Its name in headers, logs and metrics; endpoint-1, endpoint-2, … by its place in the list
    when left out. Callers see names, and only admins see addresses."""
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
    """Requests at a time per loaded model (its OLLAMA_NUM_PARALLEL); found out when left out."""
    vram: Annotated[Size, Field(ge=1)] | None = None
    """Memory for models, such as 24GB; learned when left out."""
    max_loaded_models: Annotated[int, Field(ge=1)] | None = None
    """Models in memory at a time (its OLLAMA_MAX_LOADED_MODELS); learned from 3 on when left
    out."""
    load_bandwidth: Annotated[Rate, Field(ge=1)] | None = None
    """Bytes per second at which models load from its disk, such as 2GB/s (or 2GB); learned in
    any case."""
    health_check_url: str | None = None
    """Path that tells whether it lives, or a URL below its own; the type's when left out."""
    model_url: str | None = None
    """Path that lists its models, or a URL below its own; the type's when left out."""
    model_filter: Filter = Filter()
    auth: Auth | None = None
    headers: dict[HeaderName, HeaderValue] = Field(default={}, repr=False)
    """Header fields added to every request to it."""
    forward_authorization: bool = False
    """Pass the client's own Authorization, X-API-Key and Cookie on to it."""

    @field_validator("url")
    @classmethod
    def _plain_url(cls, value: str) -> str:
        read_address(value)
        return value

    @field_validator("name")
    @classmethod
    def _shown_in_headers(cls, value: str) -> str:
        if len(value) > 100 or not value.isprintable() or value != value.strip():
            raise ValueError(f"{value[:100]!r} must be at most 100 printable characters")
        return value

    @field_validator("type")
    @classmethod
    def _known_type(cls, value: str) -> str:
        key = value.strip().lower()
        return one_of(sorted([AUTO, *PROFILES]), ALIASES.get(key, key), "type of endpoint")

    @model_validator(mode="after")
    def _fits_together(self) -> "Endpoint":
        if self.check_timeout is not None and self.check_timeout >= self.check_interval:
            raise about_key("check_timeout", "check_timeout must be shorter than check_interval")
        address = read_address(self.url)
        for key in ("health_check_url", "model_url"):
            text = getattr(self, key)
            try:
                if text is not None:
                    read_path(text, address)
            except ValueError as error:
                raise about_key(key, str(error)) from None
        names = [name.lower() for name in self.headers]
        if self.auth is not None:
            names.append(self.auth.header.lower() if self.auth.type == "api_key" else _BY_AUTH)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise about_key(
                "headers", f"the header {twice[0]} is set twice, counting auth; leave one out"
            )
        return self

    @property
    def effective_check_timeout(self) -> float:
        """Seconds, the default applied."""
        if self.check_timeout is not None:
            return self.check_timeout
        return min(2.0, self.check_interval / 2)

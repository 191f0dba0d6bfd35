"""Define and validate `server.cors` and `server.allowed_hosts`."""

import re
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from olla.settings.section import Section, key_error
from olla.settings.values import Duration

__all__ = ["Cors", "checked_hosts"]

_ORIGIN = re.compile(r"[a-z*][a-z0-9+.*-]*://[!-.0-~]*")
_WEB_ORIGIN = re.compile(
    r"https?://(?:\*|[a-z0-9*](?:[a-z0-9._*-]*[a-z0-9*])?|\[[0-9a-f:.]+\])(?::(?:[0-9]{1,5}|\*))?"
)
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HOST = re.compile(r"\*|(?:\*\.)?[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?\.?|[0-9a-f:]*:[0-9a-f:.]+")

_LOCAL_ORIGINS = tuple(
    f"{scheme}://{host}:*"
    for host in ("localhost", "127.0.0.1", "0.0.0.0", "[::1]")
    for scheme in ("http", "https")
)
_APP_ORIGINS = ("app://*", "file://*", "tauri://*", "vscode-webview://*", "vscode-file://*")


class Cors(Section):
    """Which web pages of other origins may use the router (CORS)."""

    enabled: bool = True
    """Allow pages of allowed_origins. If false, no page of another origin may use the router."""
    allowed_origins: tuple[str, ...] = _LOCAL_ORIGINS + _APP_ORIGINS
    """Origins whose pages may use the router. The default is Ollama's list: local pages and
    desktop apps. One * matches any characters; a trailing :* matches any port or none; a lone *
    allows every page."""
    allowed_methods: tuple[str, ...] = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    """Methods that these pages may use."""
    allowed_headers: tuple[str, ...] = ("*",)
    """Request headers that these pages may set; * for all."""
    exposed_headers: tuple[str, ...] = ()
    """Response headers that these pages may read. Empty: all that olla adds."""
    allow_credentials: bool = False
    """Let browsers send cookies and other credentials with requests from these pages."""
    max_age: Annotated[Duration, Field(le=86400)] = 300.0
    """How long browsers may cache the response to a preflight."""

    @field_validator("allowed_origins")
    @classmethod
    def _valid_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_origin(each.strip().lower()) for each in value)

    @field_validator("allowed_methods")
    @classmethod
    def _valid_methods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_token(each.strip().upper(), "method") for each in value)

    @field_validator("allowed_headers", "exposed_headers")
    @classmethod
    def _valid_headers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_token(each.strip(), "header") for each in value)

    @model_validator(mode="after")
    def _is_consistent(self) -> "Cors":
        if self.enabled and not self.allowed_origins:
            raise key_error(
                "allowed_origins", "name an origin, or set enabled: false to allow no page"
            )
        if self.enabled and self.allow_credentials and "*" in self.allowed_origins:
            raise key_error(
                "allow_credentials",
                "browsers reject credentials if allowed_origins is *; list the origins instead",
            )
        return self


def _origin(text: str) -> str:
    """Validate one allowed origin.

    Raises:
        ValueError: the text is not an origin, or must not be allowed.
    """
    if text == "*":
        return text
    if text == "null":
        raise ValueError(
            "'null' is the origin of every sandboxed page, and so cannot be allowed; serve the "
            "page from an address and allow that"
        )
    pattern = _WEB_ORIGIN if text.startswith(("http://", "https://")) else _ORIGIN
    if not pattern.fullmatch(text):
        raise ValueError(
            f"'{text}' is not an origin; write scheme://host or scheme://host:port without a path, "
            "such as https://app.example or http://localhost:3000"
        )
    if text.removesuffix(":*").count("*") > 1:
        raise ValueError(f"'{text}' has more than one *; only one * and a trailing :* are allowed")
    return text


def _token(text: str, what: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise ValueError(f"'{text}' is not a valid {what} name")
    return text


def checked_hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    """Validate host names and return them in lower case.

    Raises:
        ValueError: one of them is not a host name.
    """
    return tuple(_host(each.strip().lower()) for each in value)


def _host(text: str) -> str:
    name = text.removeprefix("[").removesuffix("]")
    if not _HOST.fullmatch(name):
        raise ValueError(
            f"'{text}' is not a host name; write it without scheme and port, such as "
            "llm.example.com, or *.example.com for all subdomains"
        )
    return name.removesuffix(".")

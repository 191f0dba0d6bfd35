"""What a file may say of web pages and host names: `server.cors` and `server.allowed_hosts`."""

import re
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from olla.settings.section import Section, about_key
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
    """Let pages of allowed_origins use the router. Otherwise no page of another origin may."""
    allowed_origins: tuple[str, ...] = _LOCAL_ORIGINS + _APP_ORIGINS
    """Origins whose pages may use the router, in place of the default: those that Ollama allows,
    local pages and desktop apps. One * stands for any characters, :* at the end for any port or
    none; a lone * allows every page."""
    allowed_methods: tuple[str, ...] = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
    """Methods that such pages may use."""
    allowed_headers: tuple[str, ...] = ("*",)
    """Request headers that such pages may set; * for all."""
    exposed_headers: tuple[str, ...] = ()
    """Response headers that such pages may read. Empty: all that olla adds."""
    allow_credentials: bool = False
    """Let browsers send cookies and the like with requests of such pages."""
    max_age: Annotated[Duration, Field(le=86400)] = 300.0
    """How long browsers may remember what a preflight answered."""

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_origin(each.strip().lower()) for each in value)

    @field_validator("allowed_methods")
    @classmethod
    def _are_methods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_token(each.strip().upper(), "method") for each in value)

    @field_validator("allowed_headers", "exposed_headers")
    @classmethod
    def _are_headers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_token(each.strip(), "header") for each in value)

    @model_validator(mode="after")
    def _is_consistent(self) -> "Cors":
        if self.enabled and not self.allowed_origins:
            raise about_key(
                "allowed_origins", "name an origin, or set enabled: false to allow no page"
            )
        if self.enabled and self.allow_credentials and "*" in self.allowed_origins:
            raise about_key(
                "allow_credentials",
                "browsers refuse credentials where allowed_origins is *; name the origins instead",
            )
        return self


def _origin(text: str) -> str:
    """Raises ValueError: it cannot be an origin, or names what must not be one."""
    if text == "*":
        return text
    if text == "null":
        raise ValueError(
            "'null' is the origin of every sandboxed page, whoever made it; serve the page from an "
            "address and name that"
        )
    pattern = _WEB_ORIGIN if text.startswith(("http://", "https://")) else _ORIGIN
    if not pattern.fullmatch(text):
        raise ValueError(
            f"'{text}' is not an origin; write scheme://host or scheme://host:port without a path, "
            "such as https://app.example or http://localhost:3000"
        )
    if text.removesuffix(":*").count("*") > 1:
        raise ValueError(f"'{text}' has more than one *; only one, and :* at the end, are possible")
    return text


def _token(text: str, what: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise ValueError(f"'{text}' is not the name of a {what}")
    return text


def checked_hosts(value: tuple[str, ...]) -> tuple[str, ...]:
    """Host names in lower case.

    Raises:
        ValueError: one is not a host name.
    """
    return tuple(_host(each.strip().lower()) for each in value)


def _host(text: str) -> str:
    name = text.removeprefix("[").removesuffix("]")
    if not _HOST.fullmatch(name):
        raise ValueError(
            f"'{text}' is not a host name; write one without scheme and port, such as "
            "llm.example.com, or *.example.com for all below it"
        )
    return name.removesuffix(".")

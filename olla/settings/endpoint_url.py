"""Parse and validate the URLs of endpoints."""

import re
from urllib.parse import urlsplit

import msgspec

from olla.settings.masking import masked_url

__all__ = ["EndpointUrl", "read_address", "read_path"]

_HOST = re.compile(r"[A-Za-z0-9._~-]+")
_PLAIN = re.compile(r"[!-~]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class EndpointUrl(msgspec.Struct, frozen=True):
    """The address of a server. Two spellings of one address are equal.

    `host` is lower-case and without brackets. `path` has no trailing slash; empty means the root.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Value of the `Host` header; the port is omitted if it is the scheme's default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def read_address(url: str) -> EndpointUrl:
    """Parse an endpoint's URL.

    Raises:
        ValueError: it is not a plain http or https URL. The message never repeats credentials or
            a query.
    """
    shown = masked_url(url)
    if "@" in url.partition("://")[2].partition("?")[0]:  # a password may contain slashes
        raise ValueError("credentials are not allowed in a URL; remove them and use auth")
    if not _PLAIN.fullmatch(url):
        raise ValueError(
            f"{shown!a} has characters that are not allowed in a URL; percent-encode them, and "
            "write international host names in their xn-- form"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text may repeat a part of a password
        raise ValueError(
            f"'{shown}' is not a valid URL: the host or the port is invalid (expected e.g. "
            "http://gpu-1:11434)"
        ) from None
    host = parts.hostname or ""
    if parts.scheme not in _DEFAULT_PORTS or not host:
        raise ValueError(f"'{shown}' must look like http://host:11434 or https://host/path")
    if not _HOST.fullmatch(host) and ":" not in host:
        raise ValueError(f"'{host}' is not a valid host name (expected e.g. gpu-1 or 10.0.0.1)")
    if parts.query or parts.fragment or port == 0:
        raise ValueError(
            f"'{shown}' may only have a scheme, a host, a port other than 0 and a path"
        )
    default = _DEFAULT_PORTS[parts.scheme]
    return EndpointUrl(
        parts.scheme, host, default if port is None else port, parts.path.rstrip("/")
    )


def read_path(text: str, address: EndpointUrl) -> str:
    """Return the path that `text` names, relative to the path of `address`.

    `text` is a path, or a full URL below `address`.

    Raises:
        ValueError: it is neither.
    """
    if not _PLAIN.fullmatch(text):
        raise ValueError(f"'{masked_url(text)}' must be a path such as /health")
    if "://" not in text:
        return text if text.startswith("/") else f"/{text}"
    whole, mark, query = text.partition("?")
    named = read_address(whole)
    same = (named.scheme, named.host, named.port) == (address.scheme, address.host, address.port)
    if not same or not f"{named.path}/".startswith(f"{address.path}/"):
        raise ValueError(
            f"'{masked_url(text)}' is not below the endpoint's url; write a path such as /health"
        )
    return (named.path[len(address.path) :] or "/") + mark + query

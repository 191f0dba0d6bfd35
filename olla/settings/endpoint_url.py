"""What an endpoint's URL says."""

import re
from urllib.parse import urlsplit

import msgspec

from olla.settings.masking import masked_url

__all__ = ["EndpointUrl", "read_address", "read_path"]

_HOST = re.compile(r"[A-Za-z0-9._~-]+")
_PLAIN = re.compile(r"[!-~]+")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class EndpointUrl(msgspec.Struct, frozen=True):
    """Where a server is. Equal for two spellings of one address.

    `host` is in lower case and without brackets, `path` without a slash at its end (so empty for
    none), and `authority` what the `Host` header says: the port only where it is not the scheme's.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and port, as they stand in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def read_address(url: str) -> EndpointUrl:
    """The address in a URL.

    Raises:
        ValueError: it is no plain http or https URL; the message never repeats credentials or a
            query.
    """
    shown = masked_url(url)
    if "@" in url.partition("://")[2].partition("?")[0]:  # a password may contain slashes
        raise ValueError("credentials do not belong in a URL; leave them out and use auth")
    if not _PLAIN.fullmatch(url):
        raise ValueError(
            f"{shown!a} has characters that no URL has; write blanks and the like "
            "percent-encoded, host names in their xn-- form"
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # whose text may repeat a part of a password
        raise ValueError(
            f"'{shown}' is not a URL: the host or the port is wrong (expected e.g. http://gpu-1:11434)"
        ) from None
    host = parts.hostname or ""
    if parts.scheme not in _DEFAULT_PORTS or not host:
        raise ValueError(f"'{shown}' must look like http://host:11434 or https://host/path")
    if not _HOST.fullmatch(host) and ":" not in host:
        raise ValueError(f"'{host}' is no host name")
    if parts.query or parts.fragment or port == 0:
        raise ValueError(f"'{shown}' must be a scheme, a host, a port and perhaps a path")
    default = _DEFAULT_PORTS[parts.scheme]
    return EndpointUrl(
        parts.scheme, host, default if port is None else port, parts.path.rstrip("/")
    )


def read_path(text: str, address: EndpointUrl) -> str:
    """The path that `text` names at an address, to be put behind the address's own path.

    `text` is a path, or a whole URL of the same server.

    Raises:
        ValueError: it is neither.
    """
    if not _PLAIN.fullmatch(text):
        raise ValueError(f"'{masked_url(text)}' must be a path such as /health")
    if "://" not in text:
        return text if text.startswith("/") else f"/{text}"
    whole, mark, query = text.partition("?")
    there = read_address(whole)
    same = (there.scheme, there.host, there.port) == (address.scheme, address.host, address.port)
    if not same or not f"{there.path}/".startswith(f"{address.path}/"):
        raise ValueError(
            f"'{masked_url(text)}' is not below the endpoint's own url; "
            "write a path such as /health"
        )
    return (there.path[len(address.path) :] or "/") + mark + query

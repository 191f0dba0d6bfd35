"""Parse authorities: validate `Host` fields and split absolute request targets.

RFC 9110, section 7.2, and RFC 9112, sections 3.2 and 3.2.2. Which host names the router accepts is
decided in `allowed_hosts`.
"""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

__all__ = ["is_authority", "is_own", "split_absolute"]

_AUTHORITY = re.compile(
    rb"(\[[0-9A-Fa-f:.]{2,45}\]|(?:[A-Za-z0-9\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})+)(?::([0-9]{0,5}))?"
)
"""A host as defined by RFC 3986 (section 3.2.2), except the comma: a list of hosts is rejected."""
_ABSOLUTE = re.compile(r"http://([^/?#]*)([/?#].*)?", re.IGNORECASE | re.DOTALL)
_LENGTH_MAX = 261
"""Bytes: the longest DNS name and a port."""
_PORT_MAX: Final = 65535
_PORT_DEFAULT: Final = 80


def is_authority(value: bytes) -> bool:
    """Return whether this is a single host with an optional port."""
    return _split(value) is not None


def split_absolute(target: str) -> tuple[str, str] | None:
    """Split a request target in absolute form (`http://host:port/path?query`).

    Returns the authority and the rest, which always begins with a slash; None for another form.
    """
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        return None
    authority, rest = match[1], match[2] or ""
    return authority, rest if rest.startswith("/") else f"/{rest}"


def is_own(authority: str, address: str, port: int, hostname: str) -> bool:
    """Return whether an authority is the router's own.

    `address` (an IP address) and `port` are those that the client has connected to; `hostname` is
    the machine's. Other DNS names of the router cannot be known.
    """
    split = _split(authority.encode("latin-1", "replace"))
    if split is None or (split[1] or _PORT_DEFAULT) != port:
        return False
    host = split[0].lower()
    if host in ("localhost", hostname.lower()):
        return True
    requested, local = _address(host), _address(address)
    if requested is None or local is None:
        return False
    return requested == local or (requested.is_loopback and local.is_loopback)


def _split(value: bytes) -> tuple[str, int | None] | None:
    """Split an authority into host and port; None if it is invalid."""
    match = _AUTHORITY.fullmatch(value) if len(value) <= _LENGTH_MAX else None
    if match is None:
        return None
    host = match[1].decode()
    port = int(match[2]) if match[2] else None
    if (port or 0) > _PORT_MAX or (host.startswith("[") and not _is_v6(host[1:-1])):
        return None
    return host, port


def _is_v6(text: str) -> bool:
    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """Parse the IP address of a host or a socket; IPv4-mapped addresses become IPv4."""
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address

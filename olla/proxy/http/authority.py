"""Who a request is for: whether its `Host` is one at all, and whose an absolute target is.

RFC 9110, section 7.2, and RFC 9112, sections 3.2 and 3.2.2. Which names a router may be asked by is
another question, and not answered here.
"""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

__all__ = ["is_authority", "is_own", "split_absolute"]

_AUTHORITY = re.compile(
    rb"(\[[0-9A-Fa-f:.]{2,45}\]|(?:[A-Za-z0-9\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})+)(?::([0-9]{0,5}))?"
)
"""A host as RFC 3986 has it (section 3.2.2), but for the comma: a list of hosts is none."""
_ABSOLUTE = re.compile(r"http://([^/?#]*)([/?#].*)?", re.IGNORECASE | re.DOTALL)
_LENGTH_MAX = 261
"""Bytes: the longest name that there is in DNS, and a port."""
_PORT_MAX: Final = 65535
_PORT_DEFAULT: Final = 80


def is_authority(value: bytes) -> bool:
    """Whether this is a host with or without a port, and nothing else."""
    return _split(value) is not None


def split_absolute(target: str) -> tuple[str, str] | None:
    """Authority and the rest of a request target in absolute form (`http://host:port/path?query`).

    None for another form. The rest begins with a slash, whatever was left out.
    """
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        return None
    authority, rest = match[1], match[2] or ""
    return authority, rest if rest.startswith("/") else f"/{rest}"


def is_own(authority: str, address: str, port: int, hostname: str) -> bool:
    """Whether an authority means the router itself.

    `address` (an IP address) and `port` are those that the client has connected to, `hostname` is
    the machine's. Names that others gave it cannot be known.
    """
    found = _split(authority.encode("latin-1", "replace"))
    if found is None or (found[1] or _PORT_DEFAULT) != port:
        return False
    host = found[0].lower()
    if host in ("localhost", hostname.lower()):
        return True
    asked, here = _address(host), _address(address)
    if asked is None or here is None:
        return False
    return asked == here or (asked.is_loopback and here.is_loopback)


def _split(value: bytes) -> tuple[str, int | None] | None:
    """Host and port of an authority; None for what is none."""
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
    """The IP address that a host or a socket names, an IPv4 one as itself."""
    try:
        address = ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address

"""Who may do what, as long as there are no keys.

Inference and lists are open, as on an Ollama server. What changes nodes, and what picks a node
by name, is for callers on this machine. Does not know paths: dialects say what an operation is.
"""

from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec

from olla.failures import Failure, Kind

__all__ = [
    "FORWARDING_HEADERS",
    "Caller",
    "may_manage",
    "refuse_management",
    "refuse_pinning",
]

FORWARDING_HEADERS = (
    "X-Forwarded-For",
    "Forwarded",
    "Via",
    "X-Real-IP",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Client-IP",
    "CF-Connecting-IP",
    "True-Client-IP",
)
"""What proxies add: any of these says that somebody else asks than the peer."""


class Caller(msgspec.Struct, frozen=True):
    """Who asks.

    `address` is the peer's IP address; `forwarded` says that the request came through a proxy
    (it carries one of `FORWARDING_HEADERS`), so that the peer's address is the proxy's;
    `origin` is the `Origin` header, which browsers send for the page that asks.
    """

    address: str
    forwarded: bool = False
    origin: str | None = None


def may_manage(caller: Caller) -> bool:
    """Whether the caller is a program on this machine.

    A proxy on this machine does not make its clients local, and neither does a browser here make
    the pages it shows local.
    """
    if caller.forwarded or not _is_loopback(caller.address):
        return False
    return caller.origin is None or _is_local_origin(caller.origin)


def refuse_management(caller: Caller, operation: str) -> Failure | None:
    """The refusal of an operation that changes nodes; None when the caller may."""
    if may_manage(caller):
        return None
    return Failure(
        Kind.FORBIDDEN,
        f"'{operation}' changes the nodes and is only open to programs on the router's own "
        "machine; run it there, or directly on the node",
    )


def refuse_pinning(caller: Caller) -> Failure | None:
    """The refusal of `X-Olla-Endpoint`; None when the caller may pick the endpoint."""
    if may_manage(caller):
        return None
    return Failure(
        Kind.FORBIDDEN,
        "choosing the endpoint with X-Olla-Endpoint is only open to programs on the router's "
        "own machine; leave the header out",
    )


def _is_loopback(address: str) -> bool:
    if address == "127.0.0.1":
        return True
    try:
        ip = ip_address(address.split("%", 1)[0])
    except ValueError:
        return False
    mapped = getattr(ip, "ipv4_mapped", None)
    return bool((mapped or ip).is_loopback)


def _is_local_origin(origin: str) -> bool:
    try:
        host = urlsplit(origin).hostname
    except ValueError:
        return False
    return host is not None and (host == "localhost" or _is_loopback(host))

"""Which fields of a head pass through the router, and which end here.

Hop-by-hop fields end (RFC 9110, section 7.6.1), those the Connection field names included; the
rest passes in its order and spelling.
"""

from collections.abc import Iterable
from http import HTTPStatus

__all__ = ["HOP_BY_HOP", "dropped_fields", "passed_fields", "reason_phrase"]

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_DROPPED_DOWNSTREAM = HOP_BY_HOP | {b"content-length"}
_ROUTERS = (b"x-olla-", b"access-control-")
"""How the names begin of fields that only the router sets: what pages may read is its policy."""


def passed_fields(status: int, reason: bytes, headers: list[tuple[bytes, bytes, bytes]]) -> bytes:
    """Status line and fields of an answer that the client gets, each with its line end.

    `headers` are (lower-case name, name as sent, value).
    """
    connection = [value for lower, _, value in headers if lower == b"connection"]
    dropped = dropped_fields(connection, _DROPPED_DOWNSTREAM)
    parts = [b"HTTP/1.1 %d %b\r\n" % (status, reason or reason_phrase(status).encode())]
    parts += [
        b"%b: %b\r\n" % (name, value)
        for lower, name, value in headers
        if lower not in dropped and not lower.startswith(_ROUTERS)
    ]
    return b"".join(parts)


def dropped_fields(connection: Iterable[bytes], always: frozenset[bytes]) -> frozenset[bytes]:
    """`always`, and what the values of the Connection fields name besides."""
    named: set[bytes] = set()
    for value in connection:
        named.update(token.strip().lower() for token in value.split(b","))
    named -= {b"", b"close", b"keep-alive"}
    return always | named if named else always


def reason_phrase(status: int) -> str:
    """The standard reason phrase, which some clients show to people."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Client Closed Request" if status == 499 else "Unknown"

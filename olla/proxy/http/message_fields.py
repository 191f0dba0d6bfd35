"""Decide which header fields the router forwards and which it drops.

In both directions hop-by-hop fields are dropped (RFC 9110, section 7.6.1), including those named
in the Connection field. The other fields keep their order and spelling.

A response field is forwarded if it describes its response: the content, how to cache it, what
generated it. It is dropped if it

* describes the connection between router and endpoint, or the response's way to the router;
* has effects beyond the response: on the router's origin in the client (its cookies, its other
  pages, its name, how to reach it), or on a proxy in front of the router;
* controls who may read the response or who must authenticate, which the router decides. The
  challenge of an endpoint that gets the client's own credentials (`forward_authorization`) is
  forwarded;
* is set by the router: `X-Olla-*`, `Server`, and rate-limit fields if the router limits the client.

All nodes and the router's own pages share one origin. So a node's cookie would go to every other
node, and its `Clear-Site-Data` would log people out of the key pages. docs/headers.md has the
table.
"""

import re
from collections.abc import Iterable
from http import HTTPStatus

__all__ = [
    "BAD_VALUE",
    "BEGINNINGS",
    "CHALLENGES",
    "ENDS_HERE",
    "HOP_BY_HOP",
    "LIMITS",
    "NOT_IN_TRAILERS",
    "TOKEN",
    "Passed",
    "dropped_fields",
    "passed_fields",
    "passed_trailers",
    "reason_phrase",
]

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""A field name, and the bytes that are invalid in a value: RFC 9110, sections 5.1 and 5.5."""

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
CHALLENGES = frozenset({b"www-authenticate", b"authentication-info", b"optional-www-authenticate"})
"""Authentication fields. Whether they are forwarded depends on the endpoint's settings."""
ENDS_HERE = frozenset(
    {
        # The connection, and the response's way to the router. The router sets its own `Server`,
        # and `Via` would name machines behind it (RFC 9110, section 7.6.3).
        *(b"alt-used", b"content-length", b"server", b"via"),
        # Effects on the whole origin that outlast the response.
        *(b"accept-ch", b"accept-ch-lifetime", b"alt-svc", b"clear-site-data", b"critical-ch"),
        *(b"expect-ct", b"nel", b"origin-agent-cluster", b"public-key-pins"),
        *(b"public-key-pins-report-only", b"refresh", b"report-to", b"reporting-endpoints"),
        *(b"service-worker-allowed", b"set-cookie", b"set-cookie2", b"set-login"),
        b"strict-transport-security",
        # Commands to a proxy in front: nginx, lighttpd and Apache would serve a local file instead.
        *(b"x-accel-charset", b"x-accel-expires", b"x-accel-limit-rate", b"x-accel-redirect"),
        *(b"x-lighttpd-send-file", b"x-lighttpd-send-tempfile", b"x-reproxy-url", b"x-sendfile"),
        # Access to the response.
        *(b"timing-allow-origin", b"x-permitted-cross-domain-policies"),
        *CHALLENGES,
        # Parsed, bounded and rewritten.
        b"retry-after",
    }
)
"""Response fields that are dropped, in addition to hop-by-hop fields."""
BEGINNINGS = (b"access-control-", b"proxy-", b"sec-", b"x-olla-")
"""Prefixes of response fields that are dropped as well."""
LIMITS = (b"ratelimit", b"x-ratelimit", b"x-rate-limit", b"anthropic-ratelimit")
"""Prefixes of rate-limit fields."""
NOT_IN_TRAILERS = frozenset(
    {
        *(b"age", b"authorization", b"cache-control", b"content-encoding", b"content-range"),
        *(b"content-type", b"date", b"expires", b"host", b"location", b"max-forwards"),
        *(b"set-cookie", b"vary", b"warning"),
    }
)
"""Fields that take effect before the trailers arrive (RFC 9110, section 6.5.1)."""

_DROPPED_DOWNSTREAM = HOP_BY_HOP | ENDS_HERE
_ORDINARY = frozenset(
    {b"cache-control", b"content-encoding", b"content-type", b"etag", b"last-modified", b"vary"}
)
"""Frequent fields that match none of the prefixes. Checking the prefixes would take longer."""


class Passed:
    """The part of a response's head that is forwarded to the client.

    `fields` are the status line and the header lines; `unlimited` is the same without the
    endpoint's rate-limit fields. `dated` says that `fields` include a `Date`. `retry_after` is the
    endpoint's raw value (empty for none), `challenge` its authentication lines. `plain` says that
    nothing but `fields` needs attention.
    """

    __slots__ = ("challenge", "dated", "fields", "plain", "retry_after", "unlimited")

    def __init__(
        self, fields: bytes, unlimited: bytes, challenge: bytes, retry_after: bytes, dated: bool
    ) -> None:
        self.fields = fields
        self.unlimited = unlimited
        self.challenge = challenge
        self.retry_after = retry_after
        self.dated = dated
        self.plain = dated and not retry_after and not challenge


def passed_fields(
    status: int, reason: bytes, headers: list[tuple[bytes, bytes, bytes]], *, streams: bool = False
) -> Passed:
    """Return the part of a response's head that is forwarded.

    `headers` are (lower-case name, name as sent, value). `streams` says that the body is a stream
    of records.
    """
    connection = [value for lower, _, value in headers if lower == b"connection"]
    dropped = dropped_fields(connection, _DROPPED_DOWNSTREAM)
    reason = reason or reason_phrase(status).encode()
    lines = [b"HTTP/1.1 %d %b\r\nServer: olla\r\n" % (status, reason)]
    limits: list[bytes] = []
    challenge: list[bytes] = []
    retry_after: list[bytes] = []
    dated = buffering = False
    for lower, name, value in headers:
        line = b"%b: %b\r\n" % (name, value)
        if lower in dropped:
            if lower in CHALLENGES:
                challenge.append(line)
            elif lower == b"retry-after":
                retry_after.append(value)
            continue
        if lower == b"date":
            dated = True
        elif lower not in _ORDINARY:
            if lower.startswith(BEGINNINGS):
                continue
            if lower == b"x-accel-buffering":
                buffering = True
            elif lower.startswith(LIMITS):
                limits.append(line)
        lines.append(line)
    if streams and not buffering:
        # Without it, nginx buffers the response until its buffers are full.
        lines.append(b"X-Accel-Buffering: no\r\n")
    fields = unlimited = b"".join(lines)
    if limits:
        unlimited = b"".join([line for line in lines if line not in limits])
    return Passed(fields, unlimited, b"".join(challenge), b", ".join(retry_after), dated)


def passed_trailers(raw: bytes) -> bytes:
    """Return the trailer lines that are forwarded; `raw` are the lines that the endpoint sent.

    Drops all of them if one is malformed: readers could interpret the others differently.
    """
    passed: list[bytes] = []
    for line in raw.split(b"\r\n")[:-1]:
        name, colon, value = line.partition(b":")
        if not colon or TOKEN.fullmatch(name) is None or BAD_VALUE.search(value):
            return b""
        lower = name.lower()
        if (
            lower not in _DROPPED_DOWNSTREAM
            and lower not in NOT_IN_TRAILERS
            and not lower.startswith(BEGINNINGS)
            and not lower.startswith(LIMITS)
        ):
            passed.append(line + b"\r\n")
    return b"".join(passed)


def dropped_fields(connection: Iterable[bytes], always: frozenset[bytes]) -> frozenset[bytes]:
    """Return `always` and the field names listed in the Connection fields, in lower case."""
    named: set[bytes] = set()
    for value in connection:
        named.update(token.strip().lower() for token in value.split(b","))
    named -= {b"", b"close", b"keep-alive"}
    return always | named if named else always


def reason_phrase(status: int) -> str:
    """Return the standard reason phrase, which some clients display."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Client Closed Request" if status == 499 else "Unknown"

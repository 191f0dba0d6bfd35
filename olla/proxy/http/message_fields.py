"""Which fields of a head pass through the router, and which end here.

In both directions hop-by-hop fields end (RFC 9110, section 7.6.1), those that the Connection field
names included; the rest passes in its order and spelling.

An answer's field passes when it describes the answer it comes with: its content, how it may be
cached, what made it. A field ends here when it

* belongs to the connection between the router and the endpoint, or tells how the answer came;
* gives orders that outlast the answer: to the client about the router's origin (its cookies, its
  other pages, its name, how to reach it), or to a proxy in front of the router;
* says who may read the answer, or who has to authenticate: that is the router's to say. Where the
  endpoint takes the client's own credentials (`forward_authorization`) its challenge passes;
* is one of the router's own: `X-Olla-*`, `Server`, and the standing of a limit where the router
  limits the client itself.

All nodes and the router's own pages share one origin, so a node's cookie would go to every other
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
"""A field's name, and what may not stand in its value: RFC 9110, sections 5.1 and 5.5."""

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
"""An endpoint that wants credentials, or has taken them: whose they are, its settings say."""
ENDS_HERE = frozenset(
    {
        # The connection, and how the answer came. A router's `Server` is its own, and `Via` would
        # name machines behind it (RFC 9110, section 7.6.3).
        *(b"alt-used", b"content-length", b"server", b"via"),
        # Orders about the whole origin that outlast the answer.
        *(b"accept-ch", b"accept-ch-lifetime", b"alt-svc", b"clear-site-data", b"critical-ch"),
        *(b"expect-ct", b"nel", b"origin-agent-cluster", b"public-key-pins"),
        *(b"public-key-pins-report-only", b"refresh", b"report-to", b"reporting-endpoints"),
        *(b"service-worker-allowed", b"set-cookie", b"set-cookie2", b"set-login"),
        b"strict-transport-security",
        # Orders to a proxy in front: nginx, lighttpd and Apache serve a file of their own instead.
        *(b"x-accel-charset", b"x-accel-expires", b"x-accel-limit-rate", b"x-accel-redirect"),
        *(b"x-lighttpd-send-file", b"x-lighttpd-send-tempfile", b"x-reproxy-url", b"x-sendfile"),
        # Who may read the answer.
        *(b"timing-allow-origin", b"x-permitted-cross-domain-policies"),
        *CHALLENGES,
        # Read, bounded and written anew.
        b"retry-after",
    }
)
"""Fields of an answer that end here, hop-by-hop fields apart."""
BEGINNINGS = (b"access-control-", b"proxy-", b"sec-", b"x-olla-")
"""How fields begin that end here as well."""
LIMITS = (b"ratelimit", b"x-ratelimit", b"x-rate-limit", b"anthropic-ratelimit")
"""How the fields begin that tell the standing of a limit."""
NOT_IN_TRAILERS = frozenset(
    {
        *(b"age", b"authorization", b"cache-control", b"content-encoding", b"content-range"),
        *(b"content-type", b"date", b"expires", b"host", b"location", b"max-forwards"),
        *(b"set-cookie", b"vary", b"warning"),
    }
)
"""What a reader of the head has already gone by (RFC 9110, section 6.5.1)."""

_DROPPED_DOWNSTREAM = HOP_BY_HOP | ENDS_HERE
_ORDINARY = frozenset(
    {b"cache-control", b"content-encoding", b"content-type", b"etag", b"last-modified", b"vary"}
)
"""What nearly every answer has, and none of the beginnings: to look for those costs more."""


class Passed:
    """What of an answer's head a client gets.

    `fields` are status line and fields, each with its line end; `unlimited` the same without the
    endpoint's limits. `dated` says that there is a date, `retry_after` is the endpoint's, as it
    came (empty for none), `challenge` its challenges with their line ends. `plain` says that there
    is nothing but fields to think of.
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
    """What of an answer a client gets; `streams` says that it comes record by record.

    `headers` are (lower-case name, name as sent, value).
    """
    connection = [value for lower, _, value in headers if lower == b"connection"]
    dropped = dropped_fields(connection, _DROPPED_DOWNSTREAM)
    reason = reason or reason_phrase(status).encode()
    lines = [b"HTTP/1.1 %d %b\r\nServer: olla\r\n" % (status, reason)]
    limits: list[bytes] = []
    challenge: list[bytes] = []
    pauses: list[bytes] = []
    dated = buffering = False
    for lower, name, value in headers:
        line = b"%b: %b\r\n" % (name, value)
        if lower in dropped:
            if lower in CHALLENGES:
                challenge.append(line)
            elif lower == b"retry-after":
                pauses.append(value)
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
        # nginx holds an answer back until its buffers are full, unless it is told otherwise.
        lines.append(b"X-Accel-Buffering: no\r\n")
    fields = unlimited = b"".join(lines)
    if limits:
        unlimited = b"".join([line for line in lines if line not in limits])
    return Passed(fields, unlimited, b"".join(challenge), b", ".join(pauses), dated)


def passed_trailers(raw: bytes) -> bytes:
    """What of an answer's trailers a client gets; `raw` are lines with their ends.

    Nothing where one of them is no field: readers would disagree on what the others are.
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

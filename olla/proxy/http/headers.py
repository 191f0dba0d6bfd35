"""Write the heads of requests to endpoints and of responses to clients."""

from collections.abc import Sequence
from urllib.parse import quote

from olla.fleet.endpoint import EndpointSpec
from olla.proxy.http.message_fields import HOP_BY_HOP, dropped_fields
from olla.proxy.http.response_head import ResponseHead

__all__ = [
    "CREDENTIALS",
    "MEANT",
    "MEANT_BEGINNINGS",
    "OURS_UPSTREAM",
    "header_value",
    "request_head",
    "response_head",
    "seconds",
    "unchanging_head",
]

RawHeaders = Sequence[tuple[bytes, bytes]]

OURS_UPSTREAM = HOP_BY_HOP | {
    b"host",
    b"content-length",
    b"expect",
    b"x-olla-request-id",
    b"x-olla-endpoint",
    b"x-olla-explain",
    b"via",
    b"x-forwarded-for",
    b"accept-encoding",
    # The router has checked the origin. An endpoint with its own CORS policy would reject it.
    b"origin",
}
"""Request fields that the router replaces or removes."""
CREDENTIALS = frozenset({b"authorization", b"x-api-key", b"cookie"})
"""Credentials for olla, which are not forwarded to endpoints by default."""
MEANT = (
    OURS_UPSTREAM
    | CREDENTIALS
    | {
        *(b"api-key", b"cache-control", b"early-data", b"http2-settings", b"idempotency-key"),
        *(b"last-event-id", b"max-forwards", b"remote-user", b"upgrade-insecure-requests"),
        *(b"cf-connecting-ip", b"true-client-ip", b"user-agent", b"x-client-ip"),
        *(b"x-cluster-client-ip", b"x-real-ip", b"x-request-id"),
    }
)
MEANT_BEGINNINGS = (
    *(b"accept-", b"access-control-", b"content-", b"if-", b"proxy-", b"sec-", b"x-accel-"),
    *(b"x-auth-", b"x-forwarded-", b"x-http-method", b"x-olla-", b"x-original-", b"x-remote-"),
    b"x-rewrite-",
)
"""Names and prefixes of fields with a meaning in HTTP, to proxies or to the router. Fields with
these names, but underscores in place of dashes, are not forwarded."""


class _ClientFields:
    """The fields of a client's request, sorted by how they are forwarded."""

    def __init__(self, headers: RawHeaders, *, readable: bool) -> None:
        """`readable`: see `unchanging_head`."""
        self.connection = self.host = b""
        self.underscored: list[bytes] = []
        """Names with an underscore, in lower case."""
        self.forwarded_for: list[bytes] = []
        self.via: list[bytes] = []
        self.has_forwarded_host = self.has_forwarded_proto = False
        self.end_to_end: list[tuple[bytes, bytes, bytes]] = []
        """(Lower-case name, name as sent, value)."""
        for name, value in headers:
            lower = name.lower()
            if lower not in OURS_UPSTREAM:
                if lower == b"x-forwarded-host":
                    self.has_forwarded_host = True
                elif lower == b"x-forwarded-proto":
                    self.has_forwarded_proto = True
                elif b"_" in lower:
                    self.underscored.append(lower)
                self.end_to_end.append((lower, name, value))
            elif lower == b"accept-encoding":
                if not readable:
                    self.end_to_end.append((lower, name, value))
            elif lower == b"host":
                self.host = self.host or value
            elif lower == b"connection":
                self.connection += value + b","
            elif lower == b"via":
                self.via.append(value)
            elif lower == b"x-forwarded-for":
                self.forwarded_for.append(value)
        if readable:
            self.end_to_end.append((b"accept-encoding", b"Accept-Encoding", b"identity"))


def unchanging_head(
    method: str,
    target: str,
    spec: EndpointSpec,
    headers: RawHeaders,
    *,
    peer: str,
    via: str | None = None,
    hidden: frozenset[bytes] | None = None,
    readable: bool = True,
) -> bytes:
    """Write the part of a request's head that is equal for all requests with the same fields.

    `target` is path and query without the endpoint's base path. `peer` is the client's IP address.
    `via` is this router's name in the `Via` field (RFC 9110, section 7.6.3), by which it detects
    loops. `hidden` are the fields (in lower case) that carried an olla key. `readable` says that
    olla parses the response for its token counts. It then requests an uncompressed one, regardless
    of the client's `Accept-Encoding`.
    """
    fields = _ClientFields(headers, readable=readable)
    end_to_end = fields.end_to_end
    dropped = dropped_fields([fields.connection] if fields.connection else (), frozenset())
    if not spec.forward_authorization:
        dropped = dropped | CREDENTIALS
    elif hidden is not None:
        dropped = dropped | hidden
    if spec.headers:
        dropped = dropped | {name.lower().encode() for name, _ in spec.headers}
    if fields.underscored:
        names = dropped | {lower for lower, _, _ in end_to_end}
        dropped = dropped | _shadows(fields.underscored, names)
    parts = [f"{method} {spec.base_path}{target} HTTP/1.1\r\nHost: {spec.authority}\r\n".encode()]
    parts += [
        b"%b: %b\r\n" % (name, value) for lower, name, value in end_to_end if lower not in dropped
    ]
    parts += [f"{name}: {value}\r\n".encode() for name, value in spec.headers]
    forwarded_for = [*reversed(fields.forwarded_for), peer.encode("latin-1", "replace")]
    parts.append(b"X-Forwarded-For: %b\r\n" % b", ".join(forwarded_for))
    via_values = fields.via if via is None else [*fields.via, f"1.1 {via}".encode()]
    if via_values:
        parts.append(b"Via: %b\r\n" % b", ".join(via_values))
    if fields.host and not fields.has_forwarded_host:
        parts.append(b"X-Forwarded-Host: %b\r\n" % fields.host)
    if not fields.has_forwarded_proto:
        parts.append(b"X-Forwarded-Proto: http\r\n")
    return b"".join(parts)


def _shadows(underscored: Sequence[bytes], names: frozenset[bytes]) -> frozenset[bytes]:
    """Return those names with an underscore that a server could mistake for another field.

    CGI, WSGI and their successors map both `Content-Length` and `Content_Length` to
    `HTTP_CONTENT_LENGTH`. So a name is dropped if its dashed form has a meaning in HTTP, to a proxy
    or to the router, or is one of `names`.
    """
    shadows: set[bytes] = set()
    for name in underscored:
        dashed = name.replace(b"_", b"-")
        if dashed in names or dashed in MEANT or dashed.startswith(MEANT_BEGINNINGS):
            shadows.add(name)
    return frozenset(shadows)


def request_head(unchanging: bytes, request_id: str, length: int | None, *, chunked: bool) -> bytes:
    """Write the head of a request to an endpoint, including the final empty line.

    `unchanging` is the result of `unchanging_head`. `length` is the body's length in bytes, None
    if the request has no body or a `chunked` one.
    """
    if chunked:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif length is not None:
        framing = b"Content-Length: %d\r\n" % length
    else:
        framing = b""
    return b"%bX-Olla-Request-ID: %b\r\n%b\r\n" % (unchanging, request_id.encode(), framing)


def response_head(
    head: ResponseHead,
    fields: bytes,
    *,
    limited: bool,
    keep_alive: bool,
    minor: int,
    chunked: bool,
    trailer: bytes | None = None,
) -> bytes:
    """Write the head of a response to the client, including the final empty line.

    `fields` are olla's own header lines. `limited` says that olla rate-limits the client, so the
    endpoint's rate-limit fields are dropped. `keep_alive` says that the client's connection stays
    open afterwards. `minor` is the client's HTTP/1 version. `trailer` is the name of a field that
    follows the body.
    """
    framing = b""
    if chunked:
        framing = b"Transfer-Encoding: chunked\r\n"
    elif head.length is not None and head.status != 204:
        framing = b"Content-Length: %d\r\n" % head.length
    if trailer is not None:
        framing += b"Trailer: %b\r\n" % trailer
    if not keep_alive:
        framing += b"Connection: close\r\n"
    elif minor == 0:
        framing += b"Connection: keep-alive\r\n"
    passed = head.passed.unlimited if limited else head.passed.fields
    return b"%b%b%b\r\n" % (passed, framing, fields)


def header_value(text: str) -> str:
    """Return `text` as a header value, with all but printable ASCII percent-encoded."""
    if text.isascii() and text.isprintable():
        return text
    return quote(text, safe=" /:@!$&'()*+,;=-._~")


def seconds(value: float) -> str:
    """Format a duration for a header, such as `0.012s`."""
    return f"{value:.3f}s"

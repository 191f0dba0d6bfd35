"""Cross-Origin Resource Sharing: which web pages may use the router, and what browsers are told.

A pure policy: an `Origin` in, header fields out. It does not read requests; `browser_guard` does.
The protocol is the Fetch standard's (https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["EXPOSED", "VARY", "CorsPolicy", "same_origin"]

VARY: Final = b"Vary: Origin\r\n"
"""The same request from another page would get another answer: caches have to keep them apart."""

EXPOSED: Final = (
    *("X-Olla-Request-ID", "X-Request-ID", "request-id", "X-Olla-Endpoint", "X-Olla-Model"),
    *("X-Olla-Backend-Type", "X-Olla-Response-Time", "X-Olla-Routing-Strategy"),
    *("X-Olla-Routing-Decision", "X-Olla-Routing-Reason", "X-Olla-Attempts", "X-Olla-Queue-Time"),
    *("X-Olla-Mode", "X-Olla-Translation", "X-Olla-Explanation", "X-Olla-Sticky-Session"),
    *("X-Olla-Sticky-Key-Source", "X-Olla-Session-ID", "X-RateLimit-Limit"),
    *("X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After", "x-should-retry"),
)
"""The fields that pages may read unless the configuration names others: all that olla adds."""

_ORIGIN_MAX = 256
"""Characters. A host name has 253 at most, and the identifiers of editors' web views have 60."""
_REMEMBERED_MAX = 1024
_HEADERS_MAX = 4096
"""Characters of `Access-Control-Request-Headers` that are repeated in the answer."""
_HEADER_LIST = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z, \t]*")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_NO_METHODS: Final[frozenset[str]] = frozenset()


class CorsPolicy:
    """Which origins may use the router from a browser. Without `origins`, none may."""

    __slots__ = ("_all", "_answer", "_known", "_methods", "_patterns", "_preflight", "_repeat")

    def __init__(
        self,
        origins: Iterable[str] = (),
        *,
        methods: Iterable[str] = (),
        headers: Iterable[str] = ("*",),
        exposed: Iterable[str] = (),
        credentials: bool = False,
        max_age: float = 0.0,
    ) -> None:
        """`origins` may have one `*` each, which stands for any characters, and may end with `:*`
        for any port or none; a lone `*` allows every origin. `methods` and `headers` are what
        pages may send; `*` allows every header. `exposed` are the fields that pages may read,
        `EXPOSED` when it is empty. `credentials` lets browsers send cookies and the like.
        `max_age` is how many seconds browsers may remember a preflight's answer."""
        patterns = [each.lower() for each in origins]
        self._all = "*" in patterns
        self._patterns = tuple(_compiled(each) for each in patterns if each != "*")
        self._known: dict[str, bytes | None] = {}
        listed = tuple(methods)
        self._methods = frozenset(listed) | ({"HEAD"} if "GET" in listed else _NO_METHODS)
        allowed = tuple(headers)
        self._repeat = "*" in allowed
        allow_credentials = _field("Access-Control-Allow-Credentials", "true")
        common = VARY + (allow_credentials if credentials else b"")
        expose = ", ".join(tuple(exposed) or EXPOSED)
        self._answer = common + _field("Access-Control-Expose-Headers", expose)
        self._preflight = (
            common
            + _field("Access-Control-Allow-Methods", ", ".join(listed))
            + _field("Access-Control-Max-Age", str(int(max_age)))
        )
        if not self._repeat:
            self._preflight += _field("Access-Control-Allow-Headers", ", ".join(allowed))

    def allows(self, origin: str) -> bool:
        """Whether pages of an origin may use the router."""
        return self._allowed(origin) is not None

    def allows_method(self, method: str) -> bool:
        """Whether pages of other origins may send requests with this method."""
        return method in self._methods

    def answer(self, origin: str) -> bytes:
        """The fields of an answer to a page of `origin`, each with its line end; none where the
        origin is not allowed."""
        allowed = self._allowed(origin)
        return b"" if allowed is None else allowed + self._answer

    def preflight(self, origin: str, headers: str | None) -> bytes:
        """The fields of the answer to a preflight, each with its line end; none where the origin
        is not allowed. `headers` are those that the page wants to send."""
        allowed = self._allowed(origin)
        if allowed is None:
            return b""
        fields = allowed + self._preflight
        if self._repeat and headers and len(headers) <= _HEADERS_MAX:
            # The browsers' own `*` does not cover Authorization, so the names are repeated.
            if _HEADER_LIST.fullmatch(headers):
                fields += _field("Access-Control-Allow-Headers", headers)
            fields += b"Vary: Access-Control-Request-Headers\r\n"
        return fields

    def _allowed(self, origin: str) -> bytes | None:
        """`Access-Control-Allow-Origin` with its line end; None where it is not allowed."""
        if self._all:
            return b"Access-Control-Allow-Origin: *\r\n"
        if len(origin) > _ORIGIN_MAX:
            return None
        try:
            return self._known[origin]
        except KeyError:
            pass
        allowed = None
        plain = origin.lower()
        if any(pattern.fullmatch(plain) for pattern in self._patterns):
            allowed = _field("Access-Control-Allow-Origin", origin)
        if len(self._known) >= _REMEMBERED_MAX:
            self._known.clear()
        self._known[origin] = allowed
        return allowed


def same_origin(origin: str, host: str) -> bool:
    """Whether a page of `origin` came from the host and port that `host` names, as the `Host`
    field does. The scheme may differ: a proxy in front of the router may have taken TLS off."""
    scheme, mark, place = origin.lower().partition("://")
    port = _DEFAULT_PORTS.get(scheme)
    if not mark or port is None or not place:
        return False
    return place.removesuffix(port) == host.strip().lower().removesuffix(port)


def _field(name: str, value: str) -> bytes:
    return f"{name}: {value}\r\n".encode()


def _compiled(pattern: str) -> re.Pattern[str]:
    """A pattern in lower case as an expression over origins in lower case."""
    port = ""
    if pattern.endswith(":*") and "://" in pattern:
        pattern, port = pattern[:-2], "(?::[0-9]{1,5})?"
    web = pattern.startswith(("http://", "https://"))
    # Of a web origin, `*` stands for labels of the host and its port; nothing could get past it
    # that browsers would read as a path or as credentials.
    wild = r"[a-z0-9._:\[\]-]*" if web else "[!-~]*"
    return re.compile(wild.join(map(re.escape, pattern.split("*"))) + port)

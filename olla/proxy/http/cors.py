"""Cross-Origin Resource Sharing (CORS): which web pages may use the router from a browser.

A pure policy that maps an `Origin` to header fields. `browser_guard` reads the requests.
The protocol is the Fetch standard's (https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["EXPOSED", "VARY", "CorsPolicy", "same_origin"]

VARY: Final = b"Vary: Origin\r\n"
"""The response depends on the page's origin, so caches must store one per origin."""

EXPOSED: Final = (
    *("X-Olla-Request-ID", "X-Request-ID", "request-id", "X-Olla-Endpoint", "X-Olla-Model"),
    *("X-Olla-Backend-Type", "X-Olla-Response-Time", "X-Olla-Routing-Strategy"),
    *("X-Olla-Routing-Decision", "X-Olla-Routing-Reason", "X-Olla-Attempts", "X-Olla-Queue-Time"),
    *("X-Olla-Mode", "X-Olla-Translation", "X-Olla-Explanation", "X-Olla-Sticky-Session"),
    *("X-Olla-Sticky-Key-Source", "X-Olla-Session-ID", "X-RateLimit-Limit"),
    *("X-RateLimit-Remaining", "X-RateLimit-Reset", "Retry-After", "x-should-retry"),
)
"""The fields that pages may read by default: all fields that olla adds."""

_ORIGIN_MAX = 256
"""Characters. A host name has at most 253; identifiers of editors' web views have 60."""
_REMEMBERED_MAX = 1024
_HEADERS_MAX = 4096
"""Characters. A longer `Access-Control-Request-Headers` is not repeated in the response."""
_HEADER_LIST = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z, \t]*")
_DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}
_NO_METHODS: Final[frozenset[str]] = frozenset()


class CorsPolicy:
    """Defines which origins may use the router from a browser. Without `origins`, none may."""

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
        """Each of `origins` may have one `*` for any characters, and may end with `:*` for any or
        no port; `*` alone allows every origin. `methods` and `headers` are those that pages may
        send; `*` allows every header. `exposed` are the fields that pages may read, by default
        `EXPOSED`. `credentials` allows browsers to send cookies and other credentials. `max_age`
        is for how many seconds browsers may cache a preflight response."""
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
        """Return whether pages of an origin may use the router."""
        return self._allowed(origin) is not None

    def allows_method(self, method: str) -> bool:
        """Return whether pages of other origins may send requests with this method."""
        return method in self._methods

    def answer(self, origin: str) -> bytes:
        """Return the header lines of a response to a page of `origin`; empty if the origin is not
        allowed."""
        allowed = self._allowed(origin)
        return b"" if allowed is None else allowed + self._answer

    def preflight(self, origin: str, headers: str | None) -> bytes:
        """Return the header lines of a preflight response; empty if the origin is not allowed.

        `headers` is the `Access-Control-Request-Headers` field."""
        allowed = self._allowed(origin)
        if allowed is None:
            return b""
        fields = allowed + self._preflight
        if self._repeat and headers and len(headers) <= _HEADERS_MAX:
            # In browsers `*` does not cover Authorization, so the names are repeated.
            if _HEADER_LIST.fullmatch(headers):
                fields += _field("Access-Control-Allow-Headers", headers)
            fields += b"Vary: Access-Control-Request-Headers\r\n"
        return fields

    def _allowed(self, origin: str) -> bytes | None:
        """Return the `Access-Control-Allow-Origin` line; None if the origin is not allowed."""
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
    """Return whether `origin` has the host and port of `host`, a value of the `Host` field.

    The scheme may differ, because a proxy in front of the router may terminate TLS.
    """
    scheme, separator, authority = origin.lower().partition("://")
    port = _DEFAULT_PORTS.get(scheme)
    if not separator or port is None or not authority:
        return False
    return authority.removesuffix(port) == host.strip().lower().removesuffix(port)


def _field(name: str, value: str) -> bytes:
    return f"{name}: {value}\r\n".encode()


def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile a lower-case pattern into an expression that matches lower-case origins."""
    port = ""
    if pattern.endswith(":*") and "://" in pattern:
        pattern, port = pattern[:-2], "(?::[0-9]{1,5})?"
    web = pattern.startswith(("http://", "https://"))
    # In a web origin, `*` matches labels of the host and its port only, and no character that
    # browsers would read as the start of a path or as credentials.
    wild = r"[a-z0-9._:\[\]-]*" if web else "[!-~]*"
    return re.compile(wild.join(map(re.escape, pattern.split("*"))) + port)

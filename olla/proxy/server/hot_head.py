"""Heads of requests that the fast path understands wholly, parsed once and known by their bytes.

The grammar is a subset of what aiohttp's parser takes, and smaller in every doubtful point: what
is not plainly one POST with one Content-Length is left to aiohttp. A client sends the same head
with every request, but for the length of the body, so the length is taken out and the rest is
looked up, with what goes to the endpoint because of it: 1 µs in place of 7 for seven fields.
"""

import re
from collections.abc import Callable
from typing import Final

from olla.dialects.dialect import Right
from olla.dialects.paths import BodyUse, Paths, Target
from olla.failures import Failed
from olla.fleet.endpoint import EndpointSpec
from olla.proxy.http.authority import is_authority
from olla.proxy.http.browser_guard import BrowserGuard
from olla.proxy.http.credentials import credentials
from olla.proxy.http.headers import unchanging_head

__all__ = ["REMEMBERED_BYTES_MAX", "HotHead", "HotHeads", "Remembered"]

_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ?(\d{1,12})\r\n")
_REQUEST_LINE = re.compile(rb"POST (/[\x21-\x7e]{0,255}) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e]*)")
_LEFT_TO_AIOHTTP = frozenset(
    {
        *(b"transfer-encoding", b"expect", b"upgrade", b"content-encoding", b"trailer"),
        *(b"keep-alive", b"proxy-connection", b"http2-settings", b"te"),
    }
)
_OBEYED = frozenset(
    {"via", "content-encoding", "x-olla-request-id", "x-olla-endpoint", "x-olla-explain"}
)
_LENGTH_MAX = 4096
"""Bytes of the longest head that is looked at."""
REMEMBERED_BYTES_MAX = 8 * 1024 * 1024
"""Bytes that heads may take which are remembered, with what goes to endpoints because of them. A
bound on their number let a thousand heads from forty addresses take 319 MB."""
_HEAD_OVERHEAD = 320
_FIELD_OVERHEAD = 320
_OUTGOING_OVERHEAD = 256
"""Bytes that Python takes beside the text itself, as measured."""
_INFERENCE = frozenset({Right.GENERATE, Right.EMBED})


class Remembered:
    """How many bytes are remembered."""

    __slots__ = ("size",)

    def __init__(self) -> None:
        self.size = 0


class HotHead:
    """A head, and everything that follows from it alone."""

    __slots__ = (
        *("_outgoing", "_remembered", "closes", "cors", "credentials", "fields"),
        *("from_proxy_only", "headers", "path", "plain", "target", "uri"),
    )

    def __init__(
        self,
        uri: str,
        headers: tuple[tuple[bytes, bytes], ...],
        target: Target,
        remembered: Remembered,
        *,
        closes: bool = False,
    ) -> None:
        """`remembered` counts the bytes of what is kept here."""
        self._remembered = remembered
        self.closes = closes
        """Whether the client wants the connection closed after the answer."""
        self.uri = uri
        self.path = uri.partition("?")[0]
        self.headers = headers
        self.target = target
        self.fields: dict[str, str] = {}
        """First values by lower-case name."""
        for name, value in headers:
            self.fields.setdefault(name.decode().lower(), value.decode())
        self.cors = b""
        """See `IncomingRequest.cors`."""
        self.from_proxy_only = False
        """Whether the head is only acceptable from a trusted proxy: any other gets an error."""
        self.plain = _OBEYED.isdisjoint(self.fields)
        self.credentials = credentials(headers)
        self._outgoing: dict[
            tuple[str, str, frozenset[bytes] | None], tuple[EndpointSpec, bytes]
        ] = {}

    def outgoing(
        self,
        target: Target,
        spec: EndpointSpec,
        peer: str,
        via: str | None,
        hidden: frozenset[bytes] | None,
    ) -> bytes:
        """See `headers.unchanging_head`; put together once for each endpoint and client."""
        key = (spec.name, peer, hidden)
        known = self._outgoing.get(key)
        if known is not None and known[0] is spec:
            return known[1]
        made = unchanging_head(
            "POST",
            target.upstream_target,
            spec,
            self.headers,
            peer=peer,
            via=via,
            hidden=hidden,
        )
        if known is None:
            self._remembered.size += len(made) + _OUTGOING_OVERHEAD
        self._outgoing[key] = (spec, made)
        return made


_COLD: Final = None
"""A head that aiohttp has to look at."""


class HotHeads:
    """Finds heads for the fast path."""

    __slots__ = ("_guard", "_is_own", "_known", "_paths", "_remembered")

    def __init__(
        self,
        paths: Paths,
        is_own: Callable[[str], bool] | None = None,
        guard: BrowserGuard | None = None,
    ) -> None:
        """`is_own` tells which paths olla answers itself, whatever else they could mean. `guard`
        tells which pages and hosts are accepted: the others get their refusal by way of aiohttp."""
        self._paths = paths
        self._is_own = is_own
        self._guard = guard
        self._known: dict[bytes, HotHead | None] = {}
        self._remembered = Remembered()

    def find(self, data: bytes) -> tuple[HotHead, int, int] | None:
        """The head `data` begins with, where its body begins, and how long that is.

        None for anything but a whole head that is understood wholly.
        """
        end = data.find(b"\r\n\r\n", 0, _LENGTH_MAX)
        if end < 0:
            return None
        match = _LENGTH.search(data, 0, end + 2)
        if match is None:
            return None
        start, stop = match.span(1)
        if self._remembered.size > REMEMBERED_BYTES_MAX:
            self._known.clear()
            self._remembered = Remembered()  # who still holds a head goes on counting in the old
        key = data[:start] + data[stop:end]
        try:
            head = self._known[key]
        except KeyError:
            head = self._parse(data[:end])
            self._remember(key, head)
        if head is None:
            return None
        return head, end + 4, int(data[start:stop])

    def _remember(self, key: bytes, head: HotHead | None) -> None:
        fields = 0 if head is None else len(head.headers)
        copies = 1 if head is None else 3  # the key, and the fields as bytes and as text
        self._remembered.size += copies * len(key) + fields * _FIELD_OVERHEAD + _HEAD_OVERHEAD
        self._known[key] = head

    def _parse(self, raw: bytes) -> HotHead | None:
        lines = raw.split(b"\r\n")
        match = _REQUEST_LINE.fullmatch(lines[0])
        if match is None:
            return _COLD
        headers: list[tuple[bytes, bytes]] = []
        seen: set[bytes] = set()
        closes = False
        for line in lines[1:]:
            field = _FIELD.fullmatch(line)
            if field is None:
                return _COLD
            name, value = field[1], field[2].rstrip(b" \t")
            lower = name.lower()
            if lower in _LEFT_TO_AIOHTTP:
                return _COLD
            if lower == b"host" and not is_authority(value):
                return _COLD
            if lower == b"connection":
                if value.lower() not in (b"keep-alive", b"close"):
                    return _COLD
                closes = closes or value.lower() == b"close"
            if lower in seen:
                return _COLD  # what may stand there twice is aiohttp's to know
            seen.add(lower)
            headers.append((name, value))
        if b"content-length" not in seen or b"host" not in seen:
            return _COLD
        uri = match[1].decode()
        if self._is_own is not None and self._is_own(uri.partition("?")[0]):
            return _COLD
        try:
            target = self._paths.resolve("POST", uri)
        except Failed:
            return _COLD
        if target.body is not BodyUse.JSON or target.right not in _INFERENCE:
            return _COLD
        return self._guarded(HotHead(uri, tuple(headers), target, self._remembered, closes=closes))

    def _guarded(self, head: HotHead) -> HotHead | None:
        """The head with what its answers tell browsers; `_COLD` when the guard refuses it."""
        guard = self._guard
        if guard is None:
            return head
        origins = _values(head, "origin")
        hosts, forwarded = _values(head, "host"), _values(head, "x-forwarded-host")
        head.cors, refusal = guard.check("POST", origins, hosts, forwarded, from_proxy=False)
        if refusal is not None:
            head.from_proxy_only = True
            head.cors, refusal = guard.check("POST", origins, hosts, forwarded, from_proxy=True)
        return head if refusal is None else _COLD


def _values(head: HotHead, name: str) -> tuple[str, ...]:
    value = head.fields.get(name)
    return () if value is None else (value,)

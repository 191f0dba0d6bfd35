"""One GET of one endpoint, and what came of it. Knows HTTP, not meaning.

What went wrong is told without the endpoint's address, and without the query of a path, which may
be a secret: it is shown in logs and to callers. The address is the operator's business.
"""

import asyncio
import enum
import os
import socket
import ssl
from typing import Any

import aiohttp
import msgspec
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict
from yarl import URL

from olla.clock import Clock
from olla.failures import OURS
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.retry_after import retry_after
from olla.probing.list_parsing import printable
from olla.resolver import Resolver

__all__ = ["LIST_MAX", "ProbeClient", "Reply", "Verdict"]

LIST_MAX = 8 * 1024 * 1024
"""Bytes of a list of models that are read: some ten thousand."""
_BODY_MAX = 65_536
"""Bytes of any other answer."""
_ERROR_MAX = 200
"""Characters of an error in somebody else's words."""
_OTHER_NAME = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH, whose texts have the
address in them."""


class Verdict(enum.Enum):
    """How a GET went."""

    OK = "ok"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    BROKEN = "broken"
    """A server error, or bytes that are no answer."""
    UNAUTHORIZED = "unauthorized"
    RATE_LIMITED = "rate_limited"
    LOADING = "loading"
    UNASKED = "unasked"
    """Olla itself had no file or memory left to ask with: no evidence of anything."""
    ABSENT = "absent"
    """404, 405 or 501: it lives, and does not have that path."""


class Reply(msgspec.Struct, frozen=True):
    """An answer. `error` says in words what was wrong; `retry_after` is in seconds; `more` says
    that there is more of the body than was read."""

    verdict: Verdict
    body: bytes = b""
    server: str = ""
    error: str | None = None
    retry_after: float | None = None
    more: bool = False

    def json(self) -> dict[str, Any] | None:
        """The body of a short answer as a JSON object; None when it is none. Lists are `reading`'s
        business."""
        try:
            return msgspec.json.decode(self.body, type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return None


class ProbeClient:
    """Asks. Must be made in a running loop, and closed."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # A new connection each time: a probe should also notice that none can be made. How many
        # there are at once is bounded by who asks: one question of a kind per endpoint.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                force_close=True, limit=0, use_dns_cache=False, resolver=_Names()
            ),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Give the connections up."""
        await self._session.close()

    async def get(self, spec: EndpointSpec, path: str, most: int = _BODY_MAX) -> Reply:
        """GET a path of an endpoint, within its `check_timeout`, and read up to `most` bytes of
        the answer. Never raises for what it finds."""
        shown = path.partition("?")[0]
        try:
            async with (
                asyncio.timeout(spec.check_timeout),
                self._session.get(
                    _url(spec, path),
                    headers=_headers(spec),
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None),
                ) as response,
            ):
                body = await _bounded(response, most)
                return self._judge(shown, response, body[:most], more=len(body) > most)
        except TimeoutError:
            return Reply(
                Verdict.TIMEOUT, error=f"GET {shown} timed out after {spec.check_timeout:g} s"
            )
        except aiohttp.ClientConnectorError as error:
            verdict = Verdict.UNASKED if error.errno in OURS else Verdict.UNREACHABLE
            return Reply(verdict, error=_reason(error))
        except (aiohttp.ClientError, ValueError) as error:
            return Reply(Verdict.BROKEN, error=f"GET {shown}: {_about(error)}")
        except OSError as error:
            verdict = Verdict.UNASKED if error.errno in OURS else Verdict.UNREACHABLE
            return Reply(verdict, error=_reason(error))

    def _judge(
        self, path: str, response: aiohttp.ClientResponse, body: bytes, *, more: bool
    ) -> Reply:
        status = response.status
        server = response.headers.get("Server", "")
        if 200 <= status < 300:
            return Reply(Verdict.OK, body, server, more=more)
        error = f"GET {path} answered {status}"
        if status in (401, 403):
            advice = "set its auth (discovery.static.endpoints)"
            return Reply(Verdict.UNAUTHORIZED, body, server, f"{error}: {advice}")
        if status == 429:
            pause = retry_after(response.headers.get("Retry-After", ""), self._clock.wall())
            return Reply(Verdict.RATE_LIMITED, body, server, error, pause)
        if status in (404, 405, 415, 501):
            return Reply(Verdict.ABSENT, body, server, error)
        if status == 503 and _says_loading(body):
            return Reply(Verdict.LOADING, body, server, "it is loading its model")
        return Reply(Verdict.BROKEN, body, server, error)


class _Names(AbstractResolver):
    """Finds the addresses of names, for aiohttp."""

    def __init__(self) -> None:
        self._resolver = Resolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See `Resolver.addresses`."""
        return [
            ResolveResult(
                hostname=host, host=address.host, port=port, family=address.family, proto=0, flags=0
            )
            for address in await self._resolver.addresses(host)
        ]

    async def close(self) -> None:
        """Nothing is held."""


def _url(spec: EndpointSpec, path: str) -> URL:
    host = f"[{spec.host}]" if ":" in spec.host else spec.host
    scheme = "https" if spec.tls else "http"
    return URL(f"{scheme}://{host}:{spec.port}{spec.base_path}{path}", encoded=True)


def _headers(spec: EndpointSpec) -> CIMultiDict[str]:
    """What every request to the endpoint carries; what the operator set has the last word."""
    headers = CIMultiDict({"Accept": "application/json"})
    if spec.authority:
        headers["Host"] = spec.authority
    for name, value in spec.headers:
        headers[name] = value
    return headers


async def _bounded(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body, or its beginning, at least a byte more than `most` where there is more."""
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        pieces.append(piece)
        if size > most:
            break
    return b"".join(pieces)


def _says_loading(body: bytes) -> bool:
    """Whether a 503 is what llama.cpp's server answers until its model is loaded."""
    start = body[:4096].lower()
    return b"loading model" in start or b"unavailable_error" in start


def _reason(error: OSError) -> str:
    """Why no connection could be made, in words and without the address."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name cannot be resolved"
    if isinstance(error, aiohttp.ClientSSLError):
        return f"TLS failed: {_tls_reason(error)}"
    if "refused" in str(error).lower():
        return "connection refused"
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno).lower()
    return "no connection could be made"


def _tls_reason(error: aiohttp.ClientSSLError) -> str:
    cause: Exception = error
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
    elif isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
    if isinstance(cause, ssl.SSLCertVerificationError):
        if cause.verify_code in _OTHER_NAME:
            return "the certificate is for another name"
        return printable(cause.verify_message, _ERROR_MAX)
    reason = cause.reason if isinstance(cause, ssl.SSLError) else None
    return (reason or "the handshake failed").lower().replace("_", " ")


def _about(error: Exception) -> str:
    """What was wrong with an answer. Only what the library says in words of its own: the rest may
    name the address."""
    if isinstance(error, aiohttp.ClientResponseError):
        return printable(error.message, _ERROR_MAX)
    if isinstance(error, OSError):
        return os.strerror(error.errno).lower() if error.errno else "the connection broke"
    if isinstance(error, aiohttp.InvalidURL):
        return "its address cannot be used"
    return printable(str(error), _ERROR_MAX)

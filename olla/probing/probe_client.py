"""Send one GET to an endpoint and classify the outcome, without interpreting the body.

Errors are logged and shown to callers. They contain neither the endpoint's address, which only
operators may see, nor the query of a path, which may be a secret.
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
"""Maximum bytes of a list of models: about ten thousand models."""
_BODY_MAX = 65_536
"""Maximum bytes of any other body."""
_ERROR_MAX = 200
"""Characters of an error message from a library or a server."""
_NAME_MISMATCH = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH, whose messages contain
the address."""


class Verdict(enum.Enum):
    """The outcome of a GET."""

    OK = "ok"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    BROKEN = "broken"
    """A server error, or bytes that are not an HTTP response."""
    UNAUTHORIZED = "unauthorized"
    RATE_LIMITED = "rate_limited"
    LOADING = "loading"
    NOT_SENT = "not_sent"
    """olla had no files or memory left for the probe, which says nothing about the endpoint."""
    ABSENT = "absent"
    """404, 405, 415 or 501: the endpoint is alive, but does not have the path."""


class Reply(msgspec.Struct, frozen=True):
    """A reply. `error` describes the failure; `retry_after` is in seconds; `more` says that the
    body was cut."""

    verdict: Verdict
    body: bytes = b""
    server: str = ""
    error: str | None = None
    retry_after: float | None = None
    more: bool = False

    def json(self) -> dict[str, Any] | None:
        """Decode a short body as a JSON object; None if it is not one. `list_parsing` reads
        lists."""
        try:
            return msgspec.json.decode(self.body, type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return None


class ProbeClient:
    """An HTTP client for probes. Create it in a running loop, and close it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # A new connection each time: a probe should also notice if connecting fails. Callers bound
        # the number of connections: one probe of a kind per endpoint.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                force_close=True, limit=0, use_dns_cache=False, resolver=_Names()
            ),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def get(self, spec: EndpointSpec, path: str, most: int = _BODY_MAX) -> Reply:
        """Send a GET to an endpoint, within its `check_timeout`.

        Reads `most` bytes of the body at most. Failures are in the reply and never raised.
        """
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
            verdict = Verdict.NOT_SENT if error.errno in OURS else Verdict.UNREACHABLE
            return Reply(verdict, error=_reason(error))
        except (aiohttp.ClientError, ValueError) as error:
            return Reply(Verdict.BROKEN, error=f"GET {shown}: {_about(error)}")
        except OSError as error:
            verdict = Verdict.NOT_SENT if error.errno in OURS else Verdict.UNREACHABLE
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
            advice = "set auth for this endpoint (discovery.static.endpoints)"
            return Reply(Verdict.UNAUTHORIZED, body, server, f"{error}: {advice}")
        if status == 429:
            pause = retry_after(response.headers.get("Retry-After", ""), self._clock.wall())
            return Reply(Verdict.RATE_LIMITED, body, server, error, pause)
        if status in (404, 405, 415, 501):
            return Reply(Verdict.ABSENT, body, server, error)
        if status == 503 and _says_loading(body):
            return Reply(Verdict.LOADING, body, server, "the server is loading its model")
        return Reply(Verdict.BROKEN, body, server, error)


class _Names(AbstractResolver):
    """Adapts `Resolver` to aiohttp."""

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
        """Do nothing: the resolver holds no resources."""


def _url(spec: EndpointSpec, path: str) -> URL:
    host = f"[{spec.host}]" if ":" in spec.host else spec.host
    scheme = "https" if spec.tls else "http"
    return URL(f"{scheme}://{host}:{spec.port}{spec.base_path}{path}", encoded=True)


def _headers(spec: EndpointSpec) -> CIMultiDict[str]:
    """Return the headers of every request to the endpoint. The operator's headers take
    precedence."""
    headers = CIMultiDict({"Accept": "application/json"})
    if spec.authority:
        headers["Host"] = spec.authority
    for name, value in spec.headers:
        headers[name] = value
    return headers


async def _bounded(response: aiohttp.ClientResponse, most: int) -> bytes:
    """Return the body, or its beginning: at least one byte more than `most` if it is longer."""
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        pieces.append(piece)
        if size > most:
            break
    return b"".join(pieces)


def _says_loading(body: bytes) -> bool:
    """Return whether a 503 is the response of llama.cpp's server while it loads its model."""
    start = body[:4096].lower()
    return b"loading model" in start or b"unavailable_error" in start


def _reason(error: OSError) -> str:
    """Describe why no connection could be made, without the address."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the host name cannot be resolved"
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
        if cause.verify_code in _NAME_MISMATCH:
            return "the certificate is for another name"
        return printable(cause.verify_message, _ERROR_MAX)
    reason = cause.reason if isinstance(cause, ssl.SSLError) else None
    return (reason or "the handshake failed").lower().replace("_", " ")


def _about(error: Exception) -> str:
    """Describe what was wrong with a response. Only the library's own messages are used: others may
    contain the address."""
    if isinstance(error, aiohttp.ClientResponseError):
        return printable(error.message, _ERROR_MAX)
    if isinstance(error, OSError):
        return os.strerror(error.errno).lower() if error.errno else "the connection broke"
    if isinstance(error, aiohttp.InvalidURL):
        return "the address is invalid"
    return printable(str(error), _ERROR_MAX)

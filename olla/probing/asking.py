"""One GET of one endpoint, and what came of it. Knows HTTP, not meaning."""

import asyncio
import enum
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from olla.fleet.endpoint import EndpointSpec

__all__ = ["Asker", "Reply", "Verdict"]

_BODY_MAX = 16 * 1024 * 1024
"""Bytes. A list of some ten thousand models."""


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
    ABSENT = "absent"
    """404, 405 or 501: it lives, and does not have that path."""


class Reply(msgspec.Struct, frozen=True):
    """An answer. `error` says in words what was wrong; `retry_after` is in seconds."""

    verdict: Verdict
    body: bytes = b""
    server: str = ""
    error: str | None = None
    retry_after: float | None = None

    def json(self) -> dict[str, Any] | None:
        """The body as a JSON object; None when it is none."""
        try:
            return msgspec.json.decode(self.body, type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return None


class Asker:
    """Asks. Must be made in a running loop, and closed."""

    def __init__(self) -> None:
        # A new connection each time: a probe should also notice that none can be made.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Give the connections up."""
        await self._session.close()

    async def get(self, spec: EndpointSpec, path: str) -> Reply:
        """GET a path of an endpoint, within its `check_timeout`. Never raises for what it finds."""
        host = f"[{spec.host}]" if ":" in spec.host else spec.host
        scheme = "https" if spec.tls else "http"
        url = URL(f"{scheme}://{host}:{spec.port}{spec.base_path}{path}", encoded=True)
        try:
            async with (
                asyncio.timeout(spec.check_timeout),
                self._session.get(
                    url,
                    headers={"Accept": "application/json", **dict(spec.headers)},
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None),
                ) as response,
            ):
                body = await _bounded(response)
                return _judge(path, response, body)
        except TimeoutError:
            return Reply(
                Verdict.TIMEOUT, error=f"GET {path} timed out after {spec.check_timeout:g} s"
            )
        except aiohttp.ClientConnectorError as error:
            return Reply(Verdict.UNREACHABLE, error=_reason(error))
        except (aiohttp.ClientError, ValueError) as error:
            return Reply(Verdict.BROKEN, error=f"GET {path}: {error}"[:200])
        except OSError as error:
            return Reply(Verdict.UNREACHABLE, error=_reason(error))


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        size += len(piece)
        if size > _BODY_MAX:
            raise ValueError(f"the answer is longer than {_BODY_MAX} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def _judge(path: str, response: aiohttp.ClientResponse, body: bytes) -> Reply:
    status = response.status
    server = response.headers.get("Server", "")
    if 200 <= status < 300:
        return Reply(Verdict.OK, body, server)
    error = f"GET {path} answered {status}"
    if status in (401, 403):
        return Reply(Verdict.UNAUTHORIZED, body, server, f"{error}: check its auth")
    if status == 429:
        return Reply(
            Verdict.RATE_LIMITED, body, server, error, _seconds(response.headers.get("Retry-After"))
        )
    if status in (404, 405, 415, 501):
        return Reply(Verdict.ABSENT, body, server, error)
    if status == 503 and b"oading" in body:
        return Reply(Verdict.LOADING, body, server, "it is loading its model")
    return Reply(Verdict.BROKEN, body, server, error)


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.strip().isdigit() else None


def _reason(error: OSError) -> str:
    text = str(error).lower()
    if "refused" in text:
        return "connection refused"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name cannot be resolved"
    return str(error)[:200]

"""Apply Ollama's guards against web pages: its CORS policy, and the host names that it accepts.

They work as gin's CORS middleware and `allowedHostsMiddleware` in Ollama's `server/routes.go`, with
the default origins and on loopback. They share no code with the router's policy, so that the tests
of the router do not test it against itself.
"""

import re
from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from aiohttp import web

__all__ = ["add_cors_fields", "guard"]

_LOCAL = re.compile(r"https?://(?:localhost|127\.0\.0\.1|0\.0\.0\.0)(?::.*)?")
_APPS = ("app://", "file://", "tauri://", "vscode-webview://", "vscode-file://")
_STAINLESS = (
    *("arch", "async", "custom-poll-interval", "helper-method", "lang", "os", "package-version"),
    *("poll-helper", "retry-count", "runtime", "runtime-version", "timeout"),
)
_PREFLIGHT = (
    ("Access-Control-Allow-Methods", "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"),
    (
        "Access-Control-Allow-Headers",
        "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,OpenAI-Beta,"
        + ",".join(f"X-Stainless-{name.title()}" for name in _STAINLESS),
    ),
    ("Access-Control-Max-Age", "43200"),
    ("Vary", "Origin"),
    ("Vary", "Access-Control-Request-Method"),
    ("Vary", "Access-Control-Request-Headers"),
)
_ALLOWED = web.RequestKey("allowed_origin", str)


async def guard(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse foreign pages and hosts with an empty 403, answer preflights, and leave the rest to
    the handler."""
    origin, host = request.headers.get("Origin", ""), request.headers.get("Host", "")
    if origin and origin not in (f"http://{host}", f"https://{host}"):
        if not _is_allowed(origin):
            return web.Response(status=403)
        request[_ALLOWED] = origin
        if request.method == "OPTIONS":
            return web.Response(status=204)
    name = host.rpartition(":")[0] or host
    if _is_local_name(name):
        return web.Response(status=204) if request.method == "OPTIONS" else await handler(request)
    return await handler(request) if _is_near(name) else web.Response(status=403)


async def add_cors_fields(request: web.Request, response: web.StreamResponse) -> None:
    """A signal handler: tell browsers that the page may read the answer."""
    origin = request.get(_ALLOWED)
    if origin is None:
        return
    fields = _PREFLIGHT if request.method == "OPTIONS" else (("Vary", "Origin"),)
    for name, value in (*fields, ("Access-Control-Allow-Origin", origin)):
        response.headers.add(name, value)


def _is_allowed(origin: str) -> bool:
    return _LOCAL.fullmatch(origin) is not None or origin.startswith(_APPS)


def _is_local_name(name: str) -> bool:
    lower = name.lower()
    return lower in ("", "localhost") or lower.endswith((".localhost", ".local", ".internal"))


def _is_near(name: str) -> bool:
    try:
        address = ip_address(name.strip("[]"))
    except ValueError:
        return False
    return address.is_loopback or address.is_private or address.is_unspecified

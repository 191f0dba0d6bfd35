"""Serve the pages for people: keys at `/admin/api-keys`, the playground at `/admin/playground`.

The files are static and contain no data. They load without a key, so that a person can enter one;
the management API, from which they read, requires it.
"""

from html import escape
from importlib.resources import files

from aiohttp import web

from olla.proxy.internal.routes import InternalRequest, InternalRoute
from olla.surfaces.json_requests import Answer, by_method

__all__ = ["PAGES", "SAFE_HEADERS", "pages"]

PAGES = {
    "/admin/api-keys": "api-keys.html",
    "/admin/playground": "playground.html",
    "/admin/api-keys.js": "api-keys.js",
    "/admin/playground.js": "playground.js",
    "/admin/common.js": "common.js",
    "/admin/style.css": "style.css",
    "/admin/icon.svg": "icon.svg",
}
_TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
SAFE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""Sent with each page: nothing is loaded from other origins, and no page may frame it."""


def pages(prefix: str) -> dict[str, InternalRoute]:
    """Return the pages over the management API at `prefix`. They need no key themselves."""
    folder = files("olla") / "web"
    found: dict[str, InternalRoute] = {}
    for path, name in PAGES.items():
        text = (folder / name).read_text("utf-8")
        kind = name.rpartition(".")[2]
        if kind == "html":
            text = text.replace("{{prefix}}", escape(prefix))
        answer = by_method("olla", {"GET": _file(text.encode(), _TYPES[kind])})
        found[path] = InternalRoute(answer, right=None, operation="page")
    return found


def _file(body: bytes, content_type: str) -> Answer:
    async def answer(request: web.BaseRequest, asked: InternalRequest) -> web.Response:
        return web.Response(body=body, headers={"Content-Type": content_type, **SAFE_HEADERS})

    return answer

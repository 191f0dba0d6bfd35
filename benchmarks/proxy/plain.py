"""The baseline: a simple reverse proxy with aiohttp's server and client.

It reads any request with its body, sends it to one backend, and streams the response back. It has
no routing, timeouts or log.
"""

import argparse

import aiohttp
import uvloop
from aiohttp import web

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "host"})


async def make(backend: str) -> web.Application:
    """Build the proxy application."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
    session = aiohttp.ClientSession(connector=connector, auto_decompress=False)

    async def relay(request: web.Request) -> web.StreamResponse:
        headers = [(k, v) for k, v in request.headers.items() if k.lower() not in _HOP]
        body = await request.read()
        async with session.request(
            request.method, backend + request.path_qs, headers=headers, data=body
        ) as upstream:
            response = web.StreamResponse(status=upstream.status, reason=upstream.reason)
            for name, value in upstream.headers.items():
                if name.lower() not in _HOP:
                    response.headers.add(name, value)
            await response.prepare(request)
            async for piece in upstream.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", relay)
    application.on_cleanup.append(lambda _: session.close())
    return application


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("backend")
    options = parser.parse_args()
    uvloop.install()
    web.run_app(
        make(options.backend), host="127.0.0.1", port=options.port, print=None, access_log=None
    )


if __name__ == "__main__":
    main()

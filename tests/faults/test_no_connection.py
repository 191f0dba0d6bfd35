"""A connection that fails for any reason costs one attempt, and the request fails over."""

import asyncio
import socket
import ssl
from collections.abc import Callable

import pytest

from olla.failures import Kind
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.snapshot import Snapshot
from tests.wire.conftest import MODEL, MakeRouter, Router, answer, post, split

BODY = b'{"model": "%b", "stream": false}' % MODEL.encode()
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{"done":true}'

Fail = Callable[[], OSError]
TROUBLES: dict[Kind, Fail] = {
    Kind.CONNECT_REFUSED: lambda: ConnectionRefusedError(111, "refused"),
    Kind.CONNECT_UNREACHABLE: lambda: OSError(113, "no route to host"),
    Kind.CONNECT_DNS: lambda: socket.gaierror(-2, "name or service not known"),
    Kind.CONNECT_TLS: lambda: ssl.SSLError(1, "certificate verify failed"),
    Kind.CONNECT_TIMEOUT: TimeoutError,
}


def break_connecting(router: Router, monkeypatch: pytest.MonkeyPatch, fail: Fail) -> None:
    """Make every connection to the first endpoint fail. The network is replaced here because a
    loopback interface cannot produce each of these errors."""
    loop, real = router.pool.loop, router.pool.loop.create_connection
    port = router.endpoints[0].port

    async def create_connection(factory: object, host: str, to: int, **more: object) -> object:
        if to == port:
            raise fail()
        return await real(factory, host, to, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(type(loop), "create_connection", staticmethod(create_connection))


@pytest.mark.parametrize(("kind", "fail"), TROUBLES.items(), ids=[kind.value for kind in TROUBLES])
async def test_a_connection_failure_fails_over(
    make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch, kind: Kind, fail: Fail
) -> None:
    """The observed failure names its kind. Without another endpoint, the client gets an error that
    names the endpoint."""
    router = await make_router(2)
    router.endpoints[1].script = answer(OK)
    with monkeypatch.context() as patched:
        break_connecting(router, patched, fail)
        for path in ("/api/generate", "/api/pull"):
            head, _ = split(await router.exchange(post(path, BODY)))
            assert head.startswith(b"HTTP/1.1 200 ")
            assert b"X-Olla-Endpoint: e1" in head
        assert {failure.kind for _, failure in router.fleet.observed if failure} == {kind}
        router.fleet.snapshot = Snapshot.of(router.fleet.snapshot.endpoints[:1])
        head, body = split(await router.exchange(post("/api/generate", BODY)))
    assert head.startswith(b"HTTP/1.1 504 " if kind is Kind.CONNECT_TIMEOUT else b"HTTP/1.1 502 ")
    assert b"e0" in body
    assert router.dispatcher.retries.refused == 0


async def test_a_connection_that_is_never_accepted_times_out(make_router: MakeRouter) -> None:
    """A real listener whose backlog is full drops new connections."""
    router = await make_router(2)
    router.endpoints[1].script = answer(OK)
    router.pool.connect_timeout = 0.2
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        try:
            for each in fillers:
                each.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(fillers[0], ("127.0.0.1", port))
            for each in fillers[1:]:
                each.connect_ex(("127.0.0.1", port))
            first, second = router.fleet.snapshot.endpoints
            spec = EndpointSpec(
                name="e0", host="127.0.0.1", port=port, authority="x", type="ollama"
            )
            moved = type(first)(
                **{**{f: getattr(first, f) for f in first.__struct_fields__}, "spec": spec}
            )
            router.fleet.snapshot = Snapshot.of((moved, second))
            head, _ = split(await router.exchange(post("/api/generate", BODY)))
            assert b"X-Olla-Endpoint: e1" in head
            kinds = [failure.kind for _, failure in router.fleet.observed if failure]
            assert kinds == [Kind.CONNECT_TIMEOUT]
        finally:
            for each in fillers:
                each.close()

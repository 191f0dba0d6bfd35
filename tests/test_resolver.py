"""Host names are resolved in threads, once at a time each; a hung look-up does not block others."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from olla.clock import SystemClock
from olla.failures import Failed, Kind
from olla.fleet.endpoint import EndpointSpec
from olla.probing.probe_client import ProbeClient, Verdict
from olla.proxy.upstream.pool import Pool
from olla.resolver import ResolvedAddress, Resolver

SILENT = "silent.example"
V4, V6 = int(socket.AF_INET), int(socket.AF_INET6)


class NameServer:
    """Replaces the system's resolver: knows some names, and never answers for one."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.known: dict[str, list[tuple[int, str]]] = {}
        self.answer = threading.Event()

    def __call__(self, host: str, port: object, **_: object) -> list[tuple[Any, ...]]:
        self.requests.append(host)
        if host == SILENT:
            self.answer.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        if host not in self.known:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(family, 1, 6, "", (address, port)) for family, address in self.known[host]]


@pytest.fixture
def names() -> Iterator[NameServer]:
    """Return a name server."""
    made = NameServer()
    yield made
    made.answer.set()


async def test_a_name_has_the_addresses_of_the_system(names: NameServer) -> None:
    """In the system's order without duplicates, and looked up each time, because addresses
    change."""
    names.known["node"] = [(V6, "::1"), (V4, "127.0.0.1"), (V6, "::1")]
    resolver = Resolver(names)
    assert await resolver.addresses("node") == [
        ResolvedAddress(V6, "::1"),
        ResolvedAddress(V4, "127.0.0.1"),
    ]
    names.known["node"] = [(V4, "127.0.0.2")]
    assert await resolver.addresses("node") == [ResolvedAddress(V4, "127.0.0.2")]


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", V4), ("::1", V6), ("fd00::5", V6)])
async def test_an_address_is_not_looked_up(names: NameServer, host: str, family: int) -> None:
    """Most endpoints are configured by address."""
    assert await Resolver(names).addresses(host) == [ResolvedAddress(family, host)]
    assert names.requests == []


@pytest.mark.parametrize("host", ["unknown", "nowhere", "a" * 70, "a..b", ""])
async def test_an_unknown_name_raises_gaierror(names: NameServer, host: str) -> None:
    """No other exception is raised."""
    names.known["nowhere"] = []
    lookup = names if host in ("unknown", "nowhere") else socket.getaddrinfo
    with pytest.raises(socket.gaierror):
        await Resolver(lookup).addresses(host)


async def test_concurrent_callers_share_one_look_up(names: NameServer) -> None:
    """A cancelled caller does not affect the others, and leaves no task behind."""
    resolver = Resolver(names)
    waiting = [asyncio.ensure_future(resolver.addresses(SILENT)) for _ in range(100)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    names.answer.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(answers[0], asyncio.CancelledError)
    assert {type(each) for each in answers[1:]} == {socket.gaierror}
    assert names.requests == [SILENT]


async def test_the_number_of_hung_look_ups_is_bounded(names: NameServer) -> None:
    """Beyond the bound a look-up fails immediately; an address needs none."""
    resolver = Resolver(names, lookups_max=1)
    hanging = asyncio.ensure_future(resolver.addresses(SILENT))
    await asyncio.sleep(0)
    with pytest.raises(socket.gaierror, match="too many"):
        await resolver.addresses("node")
    assert await resolver.addresses("127.0.0.1")
    hanging.cancel()
    await asyncio.wait([hanging])


@pytest.fixture
async def port() -> Any:
    """Run a server with a two-byte body, and return its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


MANY = 40
"""More than the thread pool of an event loop holds."""


async def test_a_silent_name_server_does_not_block_other_endpoints(
    names: NameServer, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    """Look-ups of its name time out; connections to another name succeed."""
    monkeypatch.setattr(socket, "getaddrinfo", names)
    names.known["node"] = [(V4, "127.0.0.1")]
    pool = Pool(SystemClock(), connect_timeout=0.05, idle_timeout=30.0)
    silent = EndpointSpec("silent", SILENT, port)
    failed = await asyncio.gather(
        *(pool.connect(silent) for _ in range(MANY)), return_exceptions=True
    )
    kinds = {each.failure.kind for each in failed if isinstance(each, Failed)}
    assert kinds == {Kind.CONNECT_TIMEOUT}
    pool.connect_timeout = 5.0
    connection = await pool.connect(EndpointSpec("node", "node", port))
    assert connection.usable
    await pool.close()


async def test_a_silent_name_server_does_not_block_other_probes(
    names: NameServer, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    """The probes of its name time out, and the others succeed."""
    monkeypatch.setattr(socket, "getaddrinfo", names)
    names.known["node"] = [(V4, "127.0.0.1")]
    client = ProbeClient(SystemClock())
    silent = [
        EndpointSpec(f"silent-{number}", SILENT, port + number % 100, check_timeout=0.05)
        for number in range(MANY)
    ]
    replies = await asyncio.gather(*(client.get(spec, "/") for spec in silent))
    assert {reply.verdict for reply in replies} == {Verdict.TIMEOUT}
    well = EndpointSpec("node", "node", port, check_timeout=5.0)
    assert (await client.get(well, "/")).verdict is Verdict.OK
    unknown = EndpointSpec("unknown", "unknown", port, check_timeout=5.0)
    reply = await client.get(unknown, "/")
    assert (reply.verdict, reply.error) == (Verdict.UNREACHABLE, "the host name cannot be resolved")
    await client.close()


async def test_the_next_address_of_a_name_is_tried(
    names: NameServer, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    """A name may have addresses of two protocols, one of which has no listener."""
    monkeypatch.setattr(socket, "getaddrinfo", names)
    pool = Pool(SystemClock(), connect_timeout=5.0, idle_timeout=30.0)
    names.known["node"] = [(V6, "::1"), (V4, "127.0.0.3"), (V4, "127.0.0.1")]
    assert (await pool.connect(EndpointSpec("node", "node", port))).usable
    names.known["node"] = [(V4, "127.0.0.3"), (V4, "127.0.0.2")]
    with pytest.raises(Failed) as caught:
        await pool.connect(EndpointSpec("node", "node", port))
    assert caught.value.failure.kind is Kind.CONNECT_REFUSED
    await pool.close()

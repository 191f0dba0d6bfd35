"""Run a router over endpoints that send scripted bytes: real sockets, no probes."""

import asyncio
import io
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from olla.access.keys import DEFAULT_RIGHTS
from olla.access.policy import AccessPolicy
from olla.admission.dispatcher import Dispatcher
from olla.clock import SystemClock
from olla.dialects.dialect import Right
from olla.dialects.paths import Paths, ScopeSpec
from olla.failures import Failure
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.health import Health
from olla.fleet.model_names import canonical
from olla.fleet.profiles import PROFILES
from olla.fleet.snapshot import EndpointView, Model, ResidentModel, Snapshot
from olla.proxy.background.model_loader import ModelLoader
from olla.proxy.bounds.body_budget import BodyBudget
from olla.proxy.bounds.client_timeouts import ClientTimeouts
from olla.proxy.bounds.timer_wheel import TimerWheel
from olla.proxy.exchange.admission import Admission
from olla.proxy.exchange.attempt import Timeouts
from olla.proxy.exchange.context import RequestConfig, Services, Upstreams
from olla.proxy.exchange.context_length import ContextRule
from olla.proxy.http.browser_guard import BrowserGuard
from olla.proxy.server.server import ProxyServer
from olla.proxy.upstream.pool import Pool
from olla.record import RequestRecord
from olla.routing.decision import RoutingOptions
from olla.routing.policies import POLICIES
from olla.telemetry.logging import Level, LogStyle, make_logger
from tests.gates import open_authenticator

MODEL = "m:latest"

Script = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class StaticFleet:
    """A fleet that does not change; it records observed failures and requested probes."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.observed: list[tuple[str, Failure | None]] = []
        self.probed: list[str] = []

    def observe(self, endpoint: str, failure: Failure | None, model: str | None) -> None:
        self.observed.append((endpoint, failure))

    def probe_now(self, endpoint: str) -> None:
        self.probed.append(endpoint)

    async def refresh(self, what: str, max_age: float, timeout: float) -> Snapshot:
        return self.snapshot


class ScriptedEndpoint:
    """A server that reads whole requests and lets a script answer them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.requests: list[bytes] = []
        self.connections = 0
        self.lost = asyncio.Event()
        """Set when a client closes its connection."""
        self.script: Script = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await read_body(head, reader)
                self.requests.append(head + body)
                await self.script(head + body, reader, writer)
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:
            pass  # the end of the test
        finally:
            self.lost.set()
            writer.close()


async def read_body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    """Read the body that a head announces, framing included."""
    lower = head.lower()
    if b"\r\ntransfer-encoding: chunked" in lower:
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += await reader.readuntil(b"\r\n")
        return body
    at = lower.find(b"\r\ncontent-length: ")
    if at < 0:
        return b""
    return await reader.readexactly(int(lower[at + 18 :].split(b"\r\n", 1)[0]))


def answer(*pieces: bytes, close: bool = False) -> Script:
    """Return a script that sends `pieces` one by one, each in its own read as far as TCP allows."""

    async def script(_: bytes, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            for _turn in range(4):
                await asyncio.sleep(0)
        if close:
            writer.close()

    return script


class RouterOptions(msgspec.Struct, kw_only=True):
    """Options of a router that tests vary. Times are seconds, sizes bytes, `min_rate` bytes per
    second."""

    profile: str = "ollama"
    timeouts: Timeouts = msgspec.field(default_factory=Timeouts)
    idle_timeout: float = 30.0
    read_header_timeout: float = 30.0
    read_timeout: float = 30.0
    body_timeout: float = 30.0
    send_timeout: float = 30.0
    min_rate: float = 500.0
    wait_keepalive: float = 0.0
    connections_max: int = 10_000
    bodies_max: int = 1 << 30
    body_max: int = 1024 * 1024
    num_ctx_max: int | None = None
    guard: BrowserGuard | None = None
    policy: AccessPolicy = msgspec.field(
        default_factory=lambda: AccessPolicy(anonymous=DEFAULT_RIGHTS | {Right.MANAGE})
    )
    endpoint: dict[str, object] = {}
    """More settings of each endpoint."""

    @classmethod
    def of(cls, options: dict[str, object]) -> "RouterOptions":
        """Build options; names that are not fields are settings of the endpoints."""
        fields = {name: each for name, each in options.items() if name in cls.__struct_fields__}
        more = {name: each for name, each in options.items() if name not in fields}
        return cls(**fields, endpoint=more)  # type: ignore[arg-type]

    def views(self, endpoints: "list[ScriptedEndpoint]", now: float) -> list[EndpointView]:
        """Return healthy endpoints with the model resident, the first preferred."""
        return [
            EndpointView(
                spec=EndpointSpec(
                    name=each.name,
                    host="127.0.0.1",
                    port=each.port,
                    authority=f"127.0.0.1:{each.port}",
                    type=self.profile,
                    priority=100 - number,
                    **self.endpoint,  # type: ignore[arg-type]
                ),
                position=number,
                profile=PROFILES[self.profile],
                health=Health.HEALTHY,
                models={canonical(MODEL): Model(MODEL, digest="0" * 64)},
                resident={canonical(MODEL): ResidentModel(MODEL, digest="0" * 64)},
                resident_at=now,
                models_at=now,
            )
            for number, each in enumerate(endpoints)
        ]

    def request_config(self, strategy: str) -> RequestConfig:
        """Return the configuration of requests."""
        config = RequestConfig(
            timeouts=self.timeouts,
            max_body=self.body_max,
            aliases={canonical("alias"): (canonical(MODEL),)},
            context_rule=ContextRule(self.num_ctx_max),
            strategy=strategy,
            refresh_timeout=1.0,
            wait_keepalive=self.wait_keepalive,
        )
        return config if self.guard is None else msgspec.structs.replace(config, guard=self.guard)

    def client_timeouts(self) -> ClientTimeouts:
        """Return the timeouts of clients."""
        return ClientTimeouts(
            idle=self.idle_timeout,
            head=self.read_header_timeout,
            silence=self.read_timeout,
            body=self.body_timeout,
            send=self.send_timeout,
            min_rate=self.min_rate,
        )


class Router:
    """A router's data plane on a port, over scripted endpoints."""

    def __init__(self, endpoints: list[ScriptedEndpoint]) -> None:
        self.endpoints = endpoints
        self.records: list[RequestRecord] = []
        self.log = io.StringIO()

    async def start(self, options: "RouterOptions") -> None:
        """Wire the data plane, and listen on a free port."""
        clock = SystemClock()
        self.fleet = StaticFleet(Snapshot.of(options.views(self.endpoints, clock.now())))
        self.dispatcher = Dispatcher(POLICIES["priority"], RoutingOptions())
        self.pool = Pool(clock, connect_timeout=2.0, idle_timeout=30.0)
        ids = (f"t-{number}" for number in itertools.count(1))
        self.admission = Admission(
            self.dispatcher,
            clock,
            lambda ended: ModelLoader(self.pool, ended, timeout=5.0, new_id=lambda: next(ids)),
            snapshot=lambda: self.fleet.snapshot,
        )
        timers = TimerWheel()
        self.services = Services(
            clock,
            open_authenticator(options.policy),
            self.records.append,
            ids,
            BodyBudget(options.bodies_max, options.body_max),
            timers,
        )
        self.upstreams = Upstreams(clock, self.admission, self.fleet, self.pool, timers)
        self.config = options.request_config(self.dispatcher.options.strategy.value)
        self.downstream = ProxyServer(
            self.services,
            self.upstreams,
            self.config,
            Paths(
                [ScopeSpec(p.name, p.prefixes, p.dialects) for p in PROFILES.values()],
                root_enabled=True,
            ),
            routes={},
            operations={},
            head_max=65536,
            timeouts=options.client_timeouts(),
            connections_max=options.connections_max,
            logger=make_logger(Level.DEBUG, LogStyle.JSON, self.log.write),
        )
        self._server = await asyncio.get_running_loop().create_server(
            self.downstream.server, "127.0.0.1", 0
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        await self.downstream.drain(1.0)
        await self.pool.close()
        await self._server.wait_closed()

    async def exchange(self, request: bytes) -> bytes:
        """Send a request with `Connection: close`, and read until the connection closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            await writer.drain()
            return await reader.read()
        finally:
            writer.close()

    def check_clean(self) -> None:
        """Check that no lease and no timer leaks, and that nothing was logged."""
        assert self.dispatcher.leases == 0
        assert len(self.downstream.server.deadlines) == 0
        assert self.log.getvalue() == ""


MakeRouter = Callable[..., Awaitable[Router]]


@pytest.fixture(params=["fast path", "aiohttp"])
async def make_router(request: pytest.FixtureRequest) -> AsyncIterator[MakeRouter]:
    """Provide a function that makes a router over `count` scripted endpoints.

    Every test runs on both request paths: the fast path and aiohttp.
    """
    made: list[Router] = []

    async def make(count: int = 1, **options: object) -> Router:
        endpoints = [ScriptedEndpoint(f"e{number}") for number in range(count)]
        for endpoint in endpoints:
            await endpoint.start()
        router = Router(endpoints)
        made.append(router)
        await router.start(RouterOptions.of(options))
        if request.param == "fast path":
            await router.downstream.enable_fast_path()
            assert router.downstream.server.fast_path is not None
        return router

    yield make
    for router in made:
        await router.stop()
        for endpoint in router.endpoints:
            await endpoint.stop()
        router.check_clean()


def post(path: str, body: bytes, *extra: str, version: str = "1.1", close: bool = True) -> bytes:
    """Build a POST request with a JSON body."""
    lines = [f"POST {path} HTTP/{version}", "Host: olla", f"Content-Length: {len(body)}"]
    lines += extra
    if close:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def ended(
    port: int,
    request: bytes,
    started: Callable[[], object] = lambda: None,
    *,
    half_close: bool = False,
) -> tuple[bytes, bool]:
    """Return everything received in response to a request, and whether it ended without a reset.

    `started` is called on each read once a part of the body has been received. `half_close` closes
    the client's side after the request. This uses its own socket, because asyncio's streams drop
    the data that precedes a reset.
    """
    loop = asyncio.get_running_loop()
    received = b""
    with socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, request)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(15):
            while True:
                try:
                    data = await loop.sock_recv(client, 65536)
                except ConnectionResetError:
                    return received, False
                if not data:
                    return received, True
                received += data
                if split(received)[1]:
                    started()


def split(response: bytes) -> tuple[bytes, bytes]:
    """Split a response into head and body."""
    head, _, rest = response.partition(b"\r\n\r\n")
    return head, rest

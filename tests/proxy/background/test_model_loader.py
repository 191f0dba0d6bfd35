"""Loads of olla's own, against a simulated node and against servers that misbehave."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest

from olla.admission.queue_types import BeginLoad
from olla.clock import SystemClock
from olla.failures import Failure, Kind
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.instance import ModelLoad
from olla.fleet.model_names import canonical
from olla.fleet.snapshot import Model
from olla.proxy.background.model_loader import ModelLoader
from olla.proxy.upstream.pool import Pool
from olla.simulation.server import NodeOptions, SimulatedNode
from tests.views import features, twins, view

CHAT, EMBED = "llama3.2:latest", "nomic-embed-text:latest"


class Loader:
    """Loads, and what became of them."""

    def __init__(self, port: int, timeout: float = 5.0) -> None:
        self.pool = Pool(SystemClock(), connect_timeout=1.0, idle_timeout=30.0)
        self.ended: asyncio.Queue[tuple[ModelLoad, Failure | None]] = asyncio.Queue()
        self.loads = ModelLoader(
            self.pool,
            lambda loading, failure: self.ended.put_nowait((loading, failure)),
            timeout=timeout,
            new_id=lambda: "id",
        )
        there = view("a")
        spec = EndpointSpec("a", "127.0.0.1", port, authority=f"127.0.0.1:{port}")
        models = {canonical(name): Model(name) for name in (CHAT, EMBED)}
        self.twins = twins(msgspec.structs.replace(there, spec=spec, models=models))

    def begin(
        self, model: str = CHAT, *options: tuple[str, float], embedding: bool = False
    ) -> ModelLoad:
        """Begin a load."""
        instance = self.twins.instances(canonical(model))[0]
        loading = instance.twin.start_load(instance, options, 0.0)
        about = msgspec.structs.replace(features(), embedding=embedding)
        self.loads.begin(BeginLoad(loading, about))
        return loading

    async def outcome(self) -> Failure | None:
        """How the next one ended."""
        async with asyncio.timeout(5):
            return (await self.ended.get())[1]

    async def close(self) -> None:
        """Stop."""
        await self.loads.close()
        await self.pool.close()


@pytest.fixture
async def node() -> AsyncIterator[SimulatedNode]:
    """A node that loads fast."""
    async with SimulatedNode(NodeOptions(models=(CHAT, EMBED), time_scale=0.01)) as started:
        yield started


def port_of(node: SimulatedNode) -> int:
    """Where it listens."""
    return int(node.url.rsplit(":", 1)[1])


async def test_a_chat_model_is_loaded_with_its_options(node: SimulatedNode) -> None:
    """By the empty generate; nothing is generated."""
    loader = Loader(port_of(node))
    loader.begin(CHAT, ("num_ctx", 8192.0))
    assert await loader.outcome() is None
    (resident,) = node.executor.node.resident(0.0)
    assert resident.context_length == 8192
    await loader.close()


async def test_an_embedding_model_is_loaded_by_an_empty_embed(node: SimulatedNode) -> None:
    """It does not know how to generate."""
    loader = Loader(port_of(node))
    loader.begin(EMBED, embedding=True)
    assert await loader.outcome() is None
    assert [each.name for each in node.executor.node.resident(0.0)] == [EMBED]
    await loader.close()


async def test_an_abandoned_load_is_given_up_by_the_node() -> None:
    """Hanging up is what stops it, and nobody is told of its end."""
    async with SimulatedNode(NodeOptions(models=(CHAT, EMBED), load_bandwidth=1e7)) as slow:
        loader = Loader(port_of(slow))
        loading = loader.begin()
        scheduler = slow.executor.node
        async with asyncio.timeout(5):
            while scheduler.loading is None:
                await asyncio.sleep(0.001)
            loader.loads.abandon(loading)
            while scheduler.loading is not None:
                await asyncio.sleep(0.001)
        assert scheduler.loads_aborted == 1
        assert loader.ended.empty()
        await loader.close()


async def test_a_fault_in_olla_ends_a_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the model hears of it, and the fault is reported."""
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, told: reported.append(told["exception"])
    )
    loader = Loader(1)

    async def broken(_: str) -> None:
        raise RuntimeError("a fault in olla")

    monkeypatch.setattr(loader.pool._resolver, "addresses", broken)
    loader.begin()
    failure = await loader.outcome()
    assert failure is not None
    assert failure.kind is Kind.INTERNAL
    assert "a fault in olla" in failure.message
    assert [type(error) for error in reported] == [RuntimeError]
    await loader.close()


async def serve(answer: bytes) -> asyncio.Server:
    """A server that answers anything with these bytes, and closes."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    return await asyncio.start_server(handle, "127.0.0.1", 0)


@pytest.mark.parametrize(
    ("answer", "kind", "status"),
    [
        (
            b'HTTP/1.1 400 Bad Request\r\nContent-Length: 17\r\n\r\n{"error":"never"}',
            Kind.UPSTREAM_STATUS,
            400,
        ),
        (
            b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"error":"oom"}',
            Kind.UPSTREAM_STATUS,
            500,
        ),
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", Kind.UPSTREAM_STATUS, 500),
        (b"", Kind.RESET, None),
        (b"rubbish\r\n\r\n", Kind.BAD_HEAD, None),
    ],
)
async def test_what_goes_wrong_is_told(answer: bytes, kind: Kind, status: int | None) -> None:
    """With what the endpoint said of it."""
    server = await serve(answer)
    loader = Loader(server.sockets[0].getsockname()[1])
    loader.begin()
    failure = await loader.outcome()
    assert failure is not None
    assert (failure.kind, failure.endpoint_status) == (kind, status)
    await loader.close()
    server.close()
    await server.wait_closed()


async def test_an_endpoint_that_is_away_is_told() -> None:
    """As for any request."""
    server = await serve(b"")
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    loader = Loader(port)
    loader.begin()
    failure = await loader.outcome()
    assert failure is not None
    assert failure.kind is Kind.CONNECT_REFUSED
    await loader.close()


async def test_a_load_that_never_ends_ends_with_the_time_limit() -> None:
    """At the soonest three times what was expected; the message names the setting."""
    release = asyncio.Event()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    loader = Loader(server.sockets[0].getsockname()[1], timeout=0.05)
    instance = loader.twins.instances(canonical(CHAT))[0]
    instance.rates.loaded(0.01, warm=False)
    loader.begin()
    failure = await loader.outcome()
    assert failure is not None
    assert failure.kind is Kind.FIRST_BYTE_TIMEOUT
    assert "proxy.response_header_timeout" in failure.message
    release.set()
    await loader.close()
    server.close()
    await server.wait_closed()

"""A whole router over simulated nodes, for tests: real sockets, the shipped wiring.

With OLLA_TEST_FAST_PATH=off in the environment it runs without the fast path: `make test` runs
what goes through a router both ways.
"""

import asyncio
import json
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from olla.app import App
from olla.settings import parse
from olla.simulation.server import NodeOptions, SimulatedNode

__all__ = [
    *("ADMIN", "MANAGE", "WITH_ADMIN", "Fleet", "ThreadedFleet", "node_options"),
    *("settings_text", "threaded_fleet"),
]

MANAGE = "access: {anonymous_operations: [generate, embed, list, manage]}\n"
"""Settings that let callers without a key change nodes."""
WITH_ADMIN = """
access:
  keys:
    - {name: root, key: the-admin-key, operations: [generate, embed, list, manage, admin]}
"""
"""Settings with a key for everything."""
ADMIN = {"Authorization": "Bearer the-admin-key"}
"""The header that shows it."""

TIME_SCALE = 0.002
"""Simulated seconds pass this fast: a load of ten seconds takes 20 ms."""

NODES = {
    "gpu-1": ("llama3.2:latest", "llama2:latest", "nomic-embed-text:latest", "llava:latest"),
    "gpu-2": ("llama3.2:latest", "mistral:latest", "codellama:latest", "codellama:7b"),
    "gpu-3": ("llama3.2:latest", "codellama:7b-code", "nomic-embed-text:latest"),
}


def node_options(name: str, models: tuple[str, ...], **more: object) -> NodeOptions:
    """A fast node."""
    more.setdefault("time_scale", TIME_SCALE)
    return NodeOptions(name=name, models=models, **more)  # type: ignore[arg-type]


def settings_text(urls: dict[str, str], extra: str = "", server: str = "") -> str:
    """A configuration over these endpoints, on a free port; `extra` is more YAML at the root,
    `server` more keys of the server, such as `fast_path: off, idle_timeout: 1s`."""
    endpoints = "\n".join(
        f"      - {{name: {name}, url: '{url}', type: ollama, check_interval: 1s,"
        " check_timeout: 500ms}"
        for name, url in urls.items()
    )
    own = {
        "host": "127.0.0.1",
        "port": "0",
        "shutdown_timeout": "1s",
        "allowed_hosts": "[x]",  # what requests have that are written by hand
        "fast_path": os.environ.get("OLLA_TEST_FAST_PATH", "auto"),
    }
    named = set(re.findall(r"(?:^|, )([a-z_]+): ", server))
    keys = [f"{name}: {value}" for name, value in own.items() if name not in named]
    return (
        f"server: {{{', '.join([*keys, *([server] if server else [])])}}}\n"
        "logging: {level: debug}\n"
        f"discovery:\n  static:\n    endpoints:\n{endpoints}\n{extra}"
    )


class Log:
    """Where a router logs to: a file, which the router has caught up with when it is read."""

    def __init__(self) -> None:
        self._descriptor, name = tempfile.mkstemp()
        os.unlink(name)
        self.app: App | None = None

    def __del__(self) -> None:
        os.close(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return False

    def flush(self) -> None:
        """Nothing is buffered here."""

    def getvalue(self) -> str:
        """All that was logged."""
        if self.app is not None:
            assert self.app.log_writer.flush(5.0)
        return os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0).decode()

    def clear(self) -> None:
        """Forget what was logged so far."""
        self.getvalue()
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)


class Fleet:
    """Simulated nodes with a router in front, in the running loop."""

    def __init__(
        self,
        nodes: dict[str, tuple[str, ...]],
        extra: str = "",
        server: str = "",
        *,
        beside: dict[str, str] | None = None,
        **options: object,
    ):
        """`extra` and `server`: see `settings_text`. `beside` are URLs of endpoints that run
        elsewhere. `options` are those of the nodes."""
        self.nodes = {
            name: SimulatedNode(node_options(name, models, **options))
            for name, models in nodes.items()
        }
        self.extra = extra
        self.server = server
        self.beside = beside or {}
        self.log = Log()

    async def __aenter__(self) -> "Fleet":
        for node in self.nodes.values():
            await node.start("127.0.0.1", 0)
        urls = self.beside | {name: node.url for name, node in self.nodes.items()}
        text = settings_text(urls, self.extra, self.server)
        self.app = self.log.app = App(parse(text, {}), output=self.log)  # type: ignore[arg-type]
        await self.app.start()
        await self.app.prober.first_pass()
        await self._known()
        self.url = self.app.url
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.app.stop()
        for node in self.nodes.values():
            await node.stop()

    async def _known(self) -> None:
        """Wait until all nodes are routable: on a busy machine a first probe may time out."""
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                while not all(view.routable for view in self.app.prober.snapshot.endpoints):
                    await asyncio.sleep(0.005)

    async def settled(self) -> None:
        """Wait until requests have ended whose answers a client in another thread has read."""
        async with asyncio.timeout(5):
            while self.app.downstream.active:
                await asyncio.sleep(0)

    async def check_clean(self) -> None:
        """Nothing leaks, once what clients have left is noticed; nothing was logged as an error."""
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                while self.app.dispatcher.leases or self.app.dispatcher.waiting:
                    await asyncio.sleep(0.001)
        assert self.app.dispatcher.leases == self.app.dispatcher.waiting == 0
        assert self.app.dispatcher.twins.total() == 0
        errors = [line for line in self.log.getvalue().splitlines() if '"error"' in line]
        logged = [line for line in errors if json.loads(line).get("level") == "error"]
        assert logged == [], logged


class ThreadedFleet:
    """A fleet in a thread of its own, for clients that block."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.url = fleet.url

    def call(self, coroutine):  # type: ignore[no-untyped-def]
        """Run a coroutine in the fleet's loop and wait for its result."""
        loop = self.fleet.loop  # type: ignore[attr-defined]
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(10)


@contextmanager
def threaded_fleet(
    nodes: dict[str, tuple[str, ...]] | None = None, extra: str = "", **options: object
) -> Iterator[ThreadedFleet]:
    """Run a fleet in a thread for as long as the context lasts."""
    started: list[ThreadedFleet | BaseException] = []
    ready = threading.Event()
    loops: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        stopping = asyncio.Event()
        loops.append((asyncio.get_running_loop(), stopping))
        async with Fleet(nodes or NODES, extra, **options) as fleet:
            fleet.loop = asyncio.get_running_loop()  # type: ignore[attr-defined]
            started.append(ThreadedFleet(fleet))
            ready.set()
            await stopping.wait()

    def run() -> None:
        try:
            asyncio.run(main())
        except BaseException as error:  # the thread's end must reach the test
            started.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert ready.wait(15)
        first = started[0]
        if isinstance(first, BaseException):
            raise first
        yield first
        first.call(first.fleet.settled())
        first.call(first.fleet.check_clean())
    finally:
        if loops:
            loop, stopping = loops[0]
            if not loop.is_closed():
                loop.call_soon_threadsafe(stopping.set)
        thread.join(15)
    if isinstance(started[-1], BaseException):
        raise started[-1]

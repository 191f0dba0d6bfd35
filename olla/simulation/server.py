"""Serve a simulated Ollama node on a port."""

import asyncio
import math
from collections import deque
from typing import Any

import msgspec
from aiohttp import web

from olla.clock import Clock, SystemClock
from olla.simulation.cross_origin import add_cors_fields, guard
from olla.simulation.events import NodeLimits
from olla.simulation.execution import Executor
from olla.simulation.faults import Fault, Faults, Trouble, absurd_list
from olla.simulation.management_api import ManagingApi
from olla.simulation.model_catalogue import ModelSpec, model_spec
from olla.simulation.native_api import NativeApi
from olla.simulation.openai_api import OpenAIApi, openai_error
from olla.simulation.responses import TROUBLE, ApiError, as_json, reset, spoil
from olla.simulation.storage import Storage
from olla.simulation.typed_events_api import TypedEventsApi, anthropic_error
from olla.tasks import spawn

__all__ = ["NodeOptions", "Seen", "SimulatedNode"]

_SEEN_MAX = 256


class NodeOptions(msgspec.Struct, frozen=True):
    """What a node is like.

    `models` are names from the catalogue, or whole descriptions; `tokens_per_second` and
    `prompt_tokens_per_second` hold for a model of 4 GB; `time_scale` is how many real seconds a
    simulated second takes. Keep-alives and rates are in simulated seconds; durations in answers
    are real ones, as a client would measure them, and `created_at` and `expires_at` the real time
    at which it happens. See `NodeLimits` for the
    rest.

    Raises:
        ValueError: a number makes no sense.
    """

    name: str = "node"
    models: tuple[str | ModelSpec, ...] = ("llama3.2:latest",)
    vram: int = 24 << 30
    num_parallel: int = 1
    max_loaded_models: int = 3
    max_queue: int = 512
    load_bandwidth: float = 1.0e9
    warm_bandwidth: float = 4.0e9
    keep_alive: float = 300.0
    tokens_per_second: float = 60.0
    prompt_tokens_per_second: float = 1500.0
    time_scale: float = 1.0
    seed: int = 1
    version: str = "0.33.0"

    def __post_init__(self) -> None:
        rates = ("load_bandwidth", "warm_bandwidth", "tokens_per_second")
        for name in (*rates, "prompt_tokens_per_second", "time_scale", "vram"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be more than zero")
        for name in ("num_parallel", "max_loaded_models"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1")
        if self.max_queue < 0 or self.keep_alive < 0:
            raise ValueError("max_queue and keep_alive must not be negative")


class Seen(msgspec.Struct):
    """A request that the node has seen. `body_bytes` grows while the body comes in."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body_bytes: int = 0

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        wanted = name.lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)


class SimulatedNode:
    """One node: start it, ask it, throw its faults, stop it. As a context, it runs that long."""

    def __init__(self, options: NodeOptions, clock: Clock | None = None) -> None:
        self.options = options
        self.name = options.name
        self.version = options.version
        self.seed = options.seed
        self.clock: Clock = clock or SystemClock()
        self.storage = Storage()
        for number, model in enumerate(options.models):
            spec = model if isinstance(model, ModelSpec) else model_spec(model)
            self.storage.add(spec, self.clock.wall() - 3600 * (number + 1))
        self.executor = Executor(
            NodeLimits(
                vram=options.vram,
                num_parallel=options.num_parallel,
                max_loaded_models=options.max_loaded_models,
                max_queue=options.max_queue,
                load_bandwidth=options.load_bandwidth,
                warm_bandwidth=options.warm_bandwidth,
                keep_alive=options.keep_alive,
            ),
            self.clock,
            scale=options.time_scale,
            tokens_per_second=options.tokens_per_second,
            prompt_tokens_per_second=options.prompt_tokens_per_second,
        )
        self.faults = Faults(options.seed)
        self.seen: deque[Seen] = deque(maxlen=_SEEN_MAX)
        """The last requests, probes included."""
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._refusing: asyncio.Task[None] | None = None
        self.host = ""
        self.port = 0

    async def __aenter__(self) -> "SimulatedNode":
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        """Where it listens."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; on any free port for 0.

        Raises:
            OSError: the address cannot be listened on.
        """
        app = web.Application(middlewares=[self._middleware], client_max_size=1 << 40)
        app.on_response_prepare.append(add_cors_fields)
        for api in (NativeApi(self), ManagingApi(self), OpenAIApi(self), TypedEventsApi(self)):
            app.add_routes(api.routes())
        app.add_routes(
            [
                web.get("/_simulation/state", self._state),
                web.get("/_simulation/faults", self._show_faults),
                web.put("/_simulation/faults", self._set_faults),
            ]
        )
        self._runner = web.AppRunner(
            app,
            access_log=None,
            handler_cancellation=True,
            shutdown_timeout=0.1,
            auto_decompress=False,
        )
        await self._runner.setup()
        self.host = host
        await self.accept(port)

    async def stop(self) -> None:
        """Drop all connections and listen no more."""
        if self._refusing is not None:
            self._refusing.cancel()
            self._refusing = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self._site = None
        self.executor.close()

    async def accept(self, port: int | None = None) -> None:
        """Listen again after `refuse`, on the same port."""
        assert self._runner is not None
        if self._site is None:
            wanted = self.port if port is None else port
            self._site = web.TCPSite(self._runner, self.host, wanted, reuse_address=True)
            await self._site.start()
            addresses = self._runner.addresses
            self.port = addresses[0][1]

    async def refuse(self) -> None:
        """Refuse connections from now on, and drop those that stand."""
        if self._site is not None:
            site, self._site = self._site, None
            assert self._runner is not None
            assert self._runner.server is not None
            # asyncio loses connections that it has accepted but not yet set up when their server
            # is closed: stop accepting first, and let those come to be.
            listener = site._server
            assert isinstance(listener, asyncio.AbstractServer)
            for sock in getattr(listener, "sockets", ()):
                asyncio.get_running_loop().remove_reader(sock.fileno())
            for _ in range(3):
                await asyncio.sleep(0)
            for connection in self._runner.server.connections:
                if connection.transport is not None:
                    connection.transport.abort()
            await site.stop()

    @property
    def connections(self) -> int:
        """Connections that stand."""
        if self._runner is None or self._runner.server is None:
            return 0
        return len(self._runner.server.connections)

    @property
    def generations_running(self) -> int:
        """Requests that have a slot."""
        return self.executor.running

    @property
    def generations_cancelled(self) -> int:
        """Requests whose client left while they had a slot."""
        return self.executor.cancelled

    @property
    def tokens_generated(self) -> int:
        """Tokens said since it was made."""
        return self.executor.tokens

    @property
    def loads(self) -> int:
        """Loads that came to their end."""
        return self.executor.node.loads

    # --- every request ----------------------------------------------------------------------

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path.startswith("/_simulation/"):
            return await self._answer(request, handler)
        seen = Seen(request.method, request.raw_path, tuple(request.headers.items()))
        self.seen.append(seen)

        async def answer(request: web.Request) -> web.StreamResponse:
            return await self._answer(request, handler)

        try:
            return await guard(request, answer)
        finally:
            seen.body_bytes = request.content.total_bytes

    async def _answer(self, request: web.Request, handler: Any) -> web.StreamResponse:
        native = not request.path.startswith("/v1/")
        try:
            trouble = None
            if not request.path.startswith("/_simulation/"):
                trouble = self.faults.trouble(request.path)
            if trouble is None:
                response: web.StreamResponse = await handler(request)
                return response
            answer = await self._suffer(request, trouble)
            if answer is not None:
                return answer
            if trouble.kind == "slow":
                pause = trouble.fault.seconds / 10 * self.executor.scale
                trouble = msgspec.structs.replace(trouble, pause=pause)
            request[TROUBLE] = trouble
            return await spoil(request, await handler(request), trouble)
        except ApiError as error:
            if request.path == "/v1/messages":
                return anthropic_error(error)
            if native:
                return as_json({"error": error.message}, native=True, status=error.status)
            return openai_error(error)
        except ConnectionError:
            return web.Response()  # the client has left; there is nobody to tell
        except web.HTTPNotFound:
            return await _no_such_page(request)
        except web.HTTPMethodNotAllowed as error:
            allow = {"Allow": error.headers["Allow"]}
            return web.Response(status=405, text="405 method not allowed", headers=allow)

    async def _suffer(self, request: web.Request, trouble: Trouble) -> web.StreamResponse | None:
        """What a fault does before the request is looked at; None when it goes on."""
        kind, fault = trouble.kind, trouble.fault
        transport = request.transport
        if kind == "hang":
            await asyncio.Event().wait()
        elif kind == "status":
            await request.read()
            raise ApiError(fault.status, f"simulated failure with status {fault.status}")
        elif kind == "absurd_lists":
            return web.Response(body=absurd_list(), content_type="application/json")
        elif kind == "slow":
            await self.executor.sleep(fault.seconds)
        elif kind in ("reset_before", "garbage") and transport is not None:
            if kind == "garbage":
                transport.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
                transport.close()
            else:
                reset(transport)
            return web.Response()
        return None

    # --- for tests and people -----------------------------------------------------------------

    async def _state(self, request: web.Request) -> web.Response:
        node = self.executor.node
        return as_json(
            {
                "name": self.name,
                "running": self.executor.running,
                "cancelled": self.executor.cancelled,
                "tokens": self.executor.tokens,
                "queue": node.queue_length,
                "refused": node.refused,
                "loading": node.loading,
                "loads": node.loads,
                "loads_aborted": node.loads_aborted,
                "unloads": node.unloads,
                "connections": self.connections,
            },
            native=False,
        )

    async def _show_faults(self, request: web.Request) -> web.Response:
        shown = {kind: msgspec.to_builtins(fault) for kind, fault in self.faults.active.items()}
        return as_json(shown, native=False)

    async def _set_faults(self, request: web.Request) -> web.Response:
        """Replace the faults. `refuse` lasts its seconds, since then nobody can take it away."""
        try:
            wanted = msgspec.json.decode(await request.read(), type=dict[str, Fault])
            refuse = wanted.pop("refuse", None)
            self.faults.replace(wanted)
        except (msgspec.MsgspecError, ValueError) as error:
            raise ApiError(400, str(error)) from None
        response = await self._show_faults(request)
        if refuse is not None:
            await response.prepare(request)
            await response.write_eof()
            self._refusing = spawn(self._refuse_for(refuse.seconds))
        return response

    async def _refuse_for(self, seconds: float) -> None:
        await self.refuse()
        await self.executor.sleep(seconds)
        await self.accept()


async def _no_such_page(request: web.Request) -> web.Response:
    """404; but a slash too many at the end is redirected, as Ollama's router does."""
    path = request.path.rstrip("/")
    if path != request.path and path:
        without = request.clone(rel_url=request.rel_url.with_path(path, keep_query=True))
        match = await request.app.router.resolve(without)
        if match.http_exception is None:
            status = 301 if request.method == "GET" else 307
            return web.Response(status=status, headers={"Location": str(without.rel_url)})
    return web.Response(status=404, text="404 page not found")

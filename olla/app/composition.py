"""The composition root: create all objects from settings, and manage their lifecycle.

The only place that wires objects together. Starts, reloads, drains and stops the router. Decides
nothing about requests.
"""

import asyncio
import itertools
import random
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import TextIO

from structlog.typing import FilteringBoundLogger

from olla import __version__
from olla.admission.dispatcher import Dispatcher
from olla.app.access_wiring import AccessWiring
from olla.app.chat_service import chat_status
from olla.app.internal_routes import internal_routes
from olla.app.options import (
    aliases,
    browser_guard,
    client_timeouts,
    context_rule,
    load_timeout,
    needs_restart,
    paths_for,
    queue_limits,
    routing_options,
    timeouts,
)
from olla.clock import Clock, SystemClock
from olla.failures import Failure, Kind
from olla.fleet.instance import ModelInstance
from olla.probing.prober import Prober
from olla.proxy.background.model_loader import ModelLoader
from olla.proxy.background.stall_detector import StallDetector
from olla.proxy.bounds.body_budget import BodyBudget
from olla.proxy.bounds.connection_limit import connections_max
from olla.proxy.bounds.timer_wheel import TimerWheel
from olla.proxy.exchange.admission import Admission
from olla.proxy.exchange.context import RequestConfig, Services, Upstreams
from olla.proxy.internal.routes import InternalRoute
from olla.proxy.server.server import ProxyServer
from olla.proxy.upstream.pool import Pool
from olla.record import Sink, fan_out
from olla.routing.journal import facts
from olla.routing.policies import POLICIES
from olla.settings import LoadedSettings, Settings, endpoint_specs
from olla.surfaces.key_book import KeyBook
from olla.surfaces.models.list_cache import ListCache
from olla.surfaces.models.lists import ListSurface
from olla.surfaces.status.api import StatusSurface
from olla.tasks import in_thread
from olla.telemetry.anonymous_addresses import Addresses
from olla.telemetry.decision_log import DecisionLog
from olla.telemetry.log_writer import Log, LogWriter, descriptor_of
from olla.telemetry.logging import Level, LogStyle, bridge_stdlib, drop_notice, make_logger
from olla.telemetry.loop_lag import LoopLag
from olla.telemetry.metrics import Metrics
from olla.telemetry.request_log import LogFormat, RequestLog
from olla.telemetry.traffic import Traffic

__all__ = ["App", "StartError"]

_FIRST_PASS = 0.3
"""Seconds that startup waits for the first probes before it listens. The first client should find
a known fleet, but an endpoint that is down must not delay the others."""
_FIRST_ANSWERS = 3.0
"""Seconds that a reload waits for the first probes of new endpoints; the old settings serve until
then."""
_BACKLOG = 1024
_FEW_CONNECTIONS = 400
"""A lower default means that the limit on open files is probably too low by accident."""
_LOG_CLOSES = 2.0
"""Seconds for writing the last lines of a log, whose reader may have stalled."""
_PART_STOPS = 5.0
"""Seconds that one part may take to stop: no part may block the shutdown."""


class StartError(Exception):
    """The router cannot start; the message says what to do."""


class App:
    """One router: all of its parts, started and stopped together."""

    services: Services
    upstreams: Upstreams
    config: RequestConfig
    downstream: ProxyServer
    status: StatusSurface

    def __init__(
        self, loaded: LoadedSettings, *, clock: Clock | None = None, output: TextIO | None = None
    ) -> None:
        """`output` replaces the log stream of the settings. Requires a running loop."""
        self.settings = loaded.settings
        self._loaded = loaded
        """The settings in force, as they were loaded."""
        self._clock = clock or SystemClock()
        stream = output or (sys.stderr if self.settings.logging.output == "stderr" else sys.stdout)
        self.log_writer = LogWriter(descriptor_of(stream), clock=self._clock)
        self._colors = stream is not None and stream.isatty()
        self._server: asyncio.Server | None = None
        self._started_with = loaded.settings
        self._on_loopback = True  # until the listening sockets are known
        self._via = f"olla-{secrets.token_hex(8)}"
        self.decision_log: DecisionLog | None = None
        self._program_log = self._log("router")
        self.logger = self._make_logger()
        self._wire(loaded)
        for notice in loaded.notices:
            self.logger.warning("settings notice", setting=str(notice))
        self._detach = bridge_stdlib(self.logger)

    @property
    def url(self) -> str:
        """The URL that the router listens on."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(self) -> None:
        """Start to probe, and listen.

        Raises:
            StartError: it cannot listen on the address.
        """
        server = self.settings.server
        await self.access.start()
        await self.prober.start()
        self.loop_lag.start()
        self.stall_detector.start()
        try:
            async with asyncio.timeout(_FIRST_PASS):
                await self.prober.first_pass()
        except TimeoutError:
            pass
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self.downstream.server,
                server.host,
                server.port,
                backlog=_BACKLOG,
                reuse_address=True,
                start_serving=False,
            )
            self._on_loopback = all(
                ip_address(each.getsockname()[0].partition("%")[0]).is_loopback
                for each in self._server.sockets
            )
            self.config = self._request_config(self.settings)
            self.downstream.use(self.config)
            if server.fast_path == "auto":
                await self.downstream.enable_fast_path()
            await self._server.start_serving()
        except OSError as error:
            if self._server is not None:  # bound, but another process listens on the port
                self._server.close()
            await self._stop_parts()
            await self.close_logs()
            raise StartError(
                f"cannot listen on {server.host}:{server.port}: {error.strerror or error}; "
                "stop the process that uses the port, or change server.port (or --port)"
            ) from None
        limit = self.downstream.server.connections_max
        if limit < _FEW_CONNECTIONS and server.max_connections is None:
            self.logger.warning(
                "limit on open files allows few connections; raise it (ulimit -n) or set "
                "server.max_connections",
                connections=limit,
            )
        self.logger.info("listening", url=self.url, endpoints=len(self.prober.snapshot.endpoints))

    async def stop(self) -> None:
        """Reject new connections, let running requests finish, then stop all parts."""
        if self._server is not None:
            self._server.close()
            running = self.downstream.active
            if running:
                self.logger.info("draining", requests=running)
            limit = self.settings.server.shutdown_timeout
            try:
                async with asyncio.timeout(limit + _PART_STOPS):
                    await self.downstream.drain(limit)
            except TimeoutError:
                self.logger.error("part did not stop in time", part="client connections")
        await self._stop_parts()
        if self.decision_log is not None:
            await in_thread(self.decision_log.close, _LOG_CLOSES)
        self.logger.info("stopped")
        await self.close_logs()

    async def close_logs(self) -> None:
        """Write the pending log lines, for a few seconds at most. Later lines are dropped."""
        self._detach()
        await in_thread(self.log_writer.close, _LOG_CLOSES)

    def write_to_log(self, text: str) -> None:
        """Write text to the log's stream, in order with the log lines."""
        self._program_log.put(text.encode(), urgent=True)

    async def _stop_parts(self) -> None:
        parts = {
            "stall detector": self.stall_detector.stop(),
            "probing": self.prober.stop(),
            "admission": self.admission.close(),
            "connections": self.pool.close(),
            "keys and usage": self.access.stop(),
        }
        for name, stops in parts.items():
            try:
                async with asyncio.timeout(_PART_STOPS):
                    await stops
            except TimeoutError:
                self.logger.error("part did not stop in time", part=name)
        self.loop_lag.stop()

    async def reload(self, loaded: LoadedSettings) -> None:
        """Apply new settings, all at once, after new endpoints were probed once.

        Requests in flight keep the settings that they started with. Removed endpoints get no new
        requests.

        Raises:
            SettingsError: the settings cannot be used; nothing has changed.
        """
        specs = await in_thread(endpoint_specs, loaded.settings)  # reads secret files
        await self.prober.set_specs(
            specs, first_round_timeout=_FIRST_ANSWERS, commit=lambda: self._apply(loaded)
        )
        for notice in loaded.notices:
            self.logger.warning("settings notice", setting=str(notice))
        self.logger.info(
            "settings loaded", source=loaded.source, endpoints=len(self.prober.snapshot.endpoints)
        )

    def _apply(self, loaded: LoadedSettings) -> None:
        """Apply settings: all of them, or none if a step fails."""
        before = self._loaded
        try:
            self._activate(loaded)
        except Exception:
            # Undo the steps before the one that failed, in the same iteration of the loop: apply
            # the previous settings. If a step fails again, it is the one that failed before.
            with suppress(Exception):
                self._activate(before)
            raise
        self._loaded = loaded
        for name in needs_restart(self._started_with, loaded.settings):
            self.logger.warning("changed setting needs a restart", setting=name)

    def _activate(self, loaded: LoadedSettings) -> None:
        settings = loaded.settings
        self.settings = settings
        dispatcher = self.dispatcher
        dispatcher.policy = POLICIES[settings.proxy.load_balancer]
        dispatcher.options = routing_options(settings)
        dispatcher.limits = queue_limits(settings)
        dispatcher.retries.share = settings.proxy.retry_budget
        self.pool.connect_timeout = settings.proxy.connection_timeout
        self.pool.idle_timeout = settings.proxy.connection_keep_alive
        self.admission.set_load_timeout(load_timeout(settings))
        self.prober.list_interval = settings.discovery.model_discovery.interval
        server = settings.server
        config = self._request_config(settings)
        limits = server.request_limits
        self.services.body_budget.resize(limits.max_buffered_size, limits.max_body_size)
        self.access.apply(settings)
        self.downstream.renew(
            config,
            paths_for(root_enabled=settings.surfaces.root.enabled),
            self._internal_routes(settings),
        )
        self.config = config
        self.downstream.server.limit(
            head_max=server.request_limits.max_header_size,
            timeouts=client_timeouts(settings),
            connections_max=connections_max(server.max_connections),
        )
        self.status.describe(loaded.source, settings.proxy.load_balancer)

    # --- wiring -----------------------------------------------------------------------------

    def _make_logger(self) -> FilteringBoundLogger:
        settings, log = self.settings.logging, self._program_log
        return make_logger(
            Level(settings.level),
            self._log_style,
            lambda line: log.put(line.encode("utf-8", "replace"), urgent=True),
            self._clock,
            colors=self._colors,
        )

    @property
    def _log_style(self) -> LogStyle:
        return LogStyle.JSON if self.settings.logging.format == "json" else LogStyle.CONSOLE

    def _log(self, name: str) -> Log:
        return self.log_writer.log(name, drop_notice(name, self._log_style, self._clock))

    def _dropped_lines(self) -> dict[str, int]:
        dropped = dict(self.log_writer.dropped)
        if self.decision_log is not None:
            dropped.update(self.decision_log.dropped)
        return dropped

    def _wire(self, loaded: LoadedSettings) -> None:
        settings = self.settings
        self.dispatcher = Dispatcher(
            POLICIES[settings.proxy.load_balancer],
            routing_options(settings),
            queue_limits(settings),
        )
        self.dispatcher.retries.share = settings.proxy.retry_budget
        self._wire_probing(settings)
        self._wire_proxy(loaded)
        self.stall_detector = self._wire_stall_detector()

    def _wire_probing(self, settings: Settings) -> None:
        clock = self._clock
        self.prober = Prober(
            endpoint_specs(settings),
            clock,
            rng=random.Random(),
            list_interval=settings.discovery.model_discovery.interval,
            logger=self.logger,
            changed=lambda snapshot: self.admission.changed(snapshot),
            lost=self._lost,
        )
        self.pool = Pool(
            clock,
            connect_timeout=settings.proxy.connection_timeout,
            idle_timeout=settings.proxy.connection_keep_alive,
        )
        ids = self._ids = _request_ids()
        self.admission = Admission(
            self.dispatcher,
            clock,
            lambda ended: ModelLoader(
                self.pool, ended, timeout=load_timeout(settings), new_id=lambda: next(ids)
            ),
            snapshot=lambda: self.prober.snapshot,
            loaded=self._load_ended,
        )
        self.loop_lag = LoopLag()
        self.metrics = Metrics(
            version=__version__,
            snapshot=lambda: self.prober.snapshot,
            twins=self.dispatcher.twins,
            open_connections=lambda: self.downstream.connections,
            loop_lag=self.loop_lag.worst,
            queue_length=lambda: self.dispatcher.waiting,
            retries=lambda: {
                "made": self.dispatcher.retries.made,
                "refused": self.dispatcher.retries.refused,
            },
            access=lambda: self.access.metrics(),
            dropped_lines=self._dropped_lines,
            clock=clock,
        )
        self.access = AccessWiring(settings, clock, self.logger, self.metrics)
        self.traffic = Traffic(lambda: self.prober.snapshot)
        self.addresses = Addresses(clock)
        self.catalogue = ListCache()
        self.chat_status = chat_status(
            self.access,
            self.traffic,
            self.addresses,
            lambda: self.prober.snapshot,
            self.catalogue,
            clock,
        )
        self.request_log = RequestLog(
            self._log("requests"),
            LogFormat.JSON if settings.logging.format == "json" else LogFormat.TEXT,
        )

    def _wire_proxy(self, loaded: LoadedSettings) -> None:
        settings, clock = self.settings, self._clock
        limits = settings.server.request_limits
        timers = TimerWheel()
        self.services = Services(
            clock,
            self.access.authenticator,
            self._sink(),
            self._ids,
            BodyBudget(limits.max_buffered_size, limits.max_body_size),
            timers,
        )
        self.upstreams = Upstreams(clock, self.admission, self.prober, self.pool, timers)
        self.config = self._request_config(settings)
        self.lists = ListSurface(
            snapshot=lambda: self.prober.snapshot,
            refresh=self.prober.refresh,
            clock=clock,
            catalogue=self.catalogue,
        )
        self.book = KeyBook(
            self.access.store_service,
            clock,
            self.access.tiers,
            lambda: self.prober.snapshot.by_name,
        )
        self.status = status = StatusSurface(
            snapshot=lambda: self.prober.snapshot,
            twins=self.dispatcher.twins,
            metrics=self.metrics,
            traffic=self.traffic,
            clock=clock,
            version=__version__,
            draining=lambda: self.downstream.draining,
            refresh=self.prober.refresh,
            open_connections=lambda: self.downstream.connections,
            loop_lag=self.loop_lag.worst,
            catalogue=self.catalogue,
        )
        status.describe(loaded.source, settings.proxy.load_balancer)
        self.downstream = ProxyServer(
            self.services,
            self.upstreams,
            self.config,
            paths_for(root_enabled=settings.surfaces.root.enabled),
            routes=self._internal_routes(settings),
            operations=self.lists.operations(),
            head_max=settings.server.request_limits.max_header_size,
            timeouts=client_timeouts(settings),
            connections_max=connections_max(settings.server.max_connections),
            logger=self.logger,
        )

    def _request_config(self, settings: Settings) -> RequestConfig:
        return RequestConfig(
            timeouts=timeouts(settings),
            max_body=settings.server.request_limits.max_body_size,
            aliases=aliases(settings),
            refresh_timeout=settings.model_registry.routing_strategy.options.discovery_timeout,
            context_rule=context_rule(settings),
            strategy=routing_options(settings).strategy.value,
            via=self._via,
            wait_keepalive=settings.proxy.wait_keepalive,
            guard=browser_guard(
                settings, host_name=socket.gethostname(), on_loopback=self._on_loopback
            ),
            keep_content=settings.access.log_content,
            log_explanation=self._log_explanation if settings.logging.level == "debug" else None,
        )

    def _internal_routes(self, settings: Settings) -> dict[str, InternalRoute]:
        return internal_routes(settings, self)

    def _wire_stall_detector(self) -> StallDetector:
        def reroute(instance: ModelInstance, failure: Failure) -> None:
            self.downstream.reroute(instance.twin.name, instance, failure)

        ids = self._ids
        return StallDetector(
            self.admission,
            self.pool,
            self._clock,
            in_flight=lambda: self.downstream.in_flight(),
            reroute=reroute,
            prober=self.prober,
            snapshot=lambda: self.prober.snapshot,
            new_id=lambda: next(ids),
            logger=self.logger,
        )

    def _log_explanation(self, request_id: str, explanation: str) -> None:
        self.logger.debug("candidates", id=request_id, explanation=explanation)

    def _lost(self, endpoint: str, reason: str) -> None:
        """Reroute the requests that wait for the first byte of an endpoint that went down."""
        message = f"endpoint '{endpoint}' stopped answering ({reason})"
        self.downstream.reroute(endpoint, None, Failure(Kind.GIVEN_UP, message, endpoint))

    def _load_ended(self, endpoint: str, seconds: float, failure: Failure | None) -> None:
        """Record the result of a load that olla started, and probe the endpoint."""
        if failure is None:
            self.metrics.loaded(endpoint, seconds)
        self.prober.observe(endpoint, failure, None)
        self.prober.probe_now(endpoint)

    def _open_decision_log(self, path: Path) -> DecisionLog:
        policy = self.settings.proxy.load_balancer
        try:
            return DecisionLog(
                path,
                lambda wall: facts(self.dispatcher.twins, policy, wall),
                self.logger,
                self._clock,
            )
        except OSError as error:
            raise StartError(
                f"cannot write the decision log {path}: {error.strerror}; create its folder, or "
                "change routing.decision_log"
            ) from None

    def _sink(self) -> Sink:
        sinks: list[Sink] = [self.metrics, self.traffic, self.request_log]
        sinks += [self.access.store_service, self.addresses]
        path = self.settings.routing.decision_log
        if path is not None:
            self.decision_log = self._open_decision_log(Path(path))
            sinks.append(self.decision_log)

        def failed(sink: Sink, error: Exception) -> None:
            self.logger.error("sink failed", sink=type(sink).__name__, exc_info=error)

        return fan_out(sinks, failed)


def _request_ids() -> Iterator[str]:
    """Return request ids that are unique across processes."""
    prefix = secrets.token_hex(4)
    return (f"{prefix}-{number:06x}" for number in itertools.count(1))

"""The dependencies of exchanges, in three objects.

`RequestConfig` holds the settings for new requests and is replaced as a whole by a reload.
`Upstreams` holds the fleet's side, `Services` everything else that all requests share. Both exist
for the life of the router.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import msgspec

from olla.clock import Clock
from olla.failures import Failure
from olla.fleet.snapshot import Snapshot
from olla.proxy.auth.authenticate import Authenticator
from olla.proxy.bounds.body_budget import BodyBudget
from olla.proxy.bounds.time_slices import TimeSlices
from olla.proxy.bounds.timer_wheel import TimerWheel
from olla.proxy.exchange.admission import Admission
from olla.proxy.exchange.attempt import Timeouts
from olla.proxy.exchange.context_length import ContextRule
from olla.proxy.exchange.response_headers import ResponseHeaders
from olla.proxy.http.allowed_hosts import AllowedHosts
from olla.proxy.http.browser_guard import BrowserGuard
from olla.proxy.http.cors import CorsPolicy
from olla.proxy.http.date_header import DateHeader
from olla.proxy.upstream.pool import Pool
from olla.record import Sink

__all__ = ["Fleet", "RequestConfig", "Services", "Upstreams"]

_NO_GUARD = BrowserGuard(CorsPolicy(), AllowedHosts(), enabled=False)
"""Rejects pages of other origins only."""


class Fleet(Protocol):
    """The state of the endpoints, updated by probes and by traffic."""

    @property
    def snapshot(self) -> Snapshot:
        """The current snapshot."""
        ...

    def observe(self, endpoint: str, failure: Failure | None, model: str | None) -> None:
        """Report the result of an attempt at an endpoint; None for success.

        `model` is the canonical name of the model whose slot the attempt used.
        """
        ...

    def probe_now(self, endpoint: str) -> None:
        """Probe an endpoint at once, because its state has changed."""
        ...

    async def refresh(self, what: str, max_age: float, timeout: float) -> Snapshot:
        """Return a snapshot with lists at most `max_age` seconds old, waiting up to `timeout`
        seconds for them. `what` is `models` or `resident`."""
        ...


class RequestConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The settings for new requests.

    `timeouts`: for attempts; `max_body`: bytes of a request body; `aliases`: canonical names by
    canonical name, best first; `refresh_timeout`: seconds to wait for new model lists when no
    endpoint lists a model; `context_rule`: how requested context lengths are changed; `strategy`:
    the value of `X-Olla-Routing-Strategy`; `via`: this router's name in `Via`, for loop detection;
    `wait_keepalive`: seconds between two comments in a stream that waits for its endpoint, 0 for
    none; `guard`: which requests browsers may send; `keep_content`: whether records contain prompts
    and responses; `log_explanation`: called with each request's id and the expected delays of its
    candidates.
    """

    timeouts: Timeouts
    max_body: int
    aliases: Mapping[str, tuple[str, ...]]
    refresh_timeout: float
    # Compiled, `ContextRule` is not known to be frozen, and cannot be a default.
    context_rule: ContextRule = msgspec.field(default_factory=ContextRule)
    strategy: str = ""
    via: str | None = None
    wait_keepalive: float = 0.0
    guard: BrowserGuard = _NO_GUARD
    keep_content: bool = False
    log_explanation: Callable[[str, str], None] | None = None


class Upstreams:
    """The fleet's side of exchanges: endpoint selection, connections and timers."""

    __slots__ = ("admission", "clock", "fleet", "pool", "tickets", "timers")

    def __init__(
        self, clock: Clock, admission: Admission, fleet: Fleet, pool: Pool, timers: TimerWheel
    ) -> None:
        self.clock = clock
        self.admission = admission
        self.fleet = fleet
        self.pool = pool
        self.timers = timers
        self.tickets = itertools.count()
        """Numbers of requests, by which routing breaks ties."""


class Services:
    """The services that all requests share, except the fleet."""

    __slots__ = (
        *("authenticator", "body_budget", "clock", "date_header", "ids", "response_headers"),
        *("sink", "time_slices", "timers"),
    )

    def __init__(
        self,
        clock: Clock,
        authenticator: Authenticator,
        sink: Sink,
        ids: Iterator[str],
        body_budget: BodyBudget,
        timers: TimerWheel,
    ) -> None:
        """`ids` are request ids, unique to this process."""
        self.clock = clock
        self.authenticator = authenticator
        self.sink = sink
        self.ids = ids
        self.body_budget = body_budget
        self.timers = timers
        self.date_header = DateHeader(clock)
        self.response_headers = ResponseHeaders()
        self.time_slices = TimeSlices(clock)

"""What exchanges use of the rest of the program, in three objects.

`RequestConfig` holds the rules for requests that arrive from now on, and is replaced as a whole by
a reload. `Upstreams` is the fleet's side, `Services` everything else that all requests share; both
stay for the life of the router.
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
"""Accepts the requests of pages that the router itself serves, and those of other clients."""


class Fleet(Protocol):
    """What is known of the endpoints, and who learns from traffic."""

    @property
    def snapshot(self) -> Snapshot:
        """The fleet as it is known now."""
        ...

    def observe(self, endpoint: str, failure: Failure | None, model: str | None) -> None:
        """A try against an endpoint went well (None) or did not.

        `model` is the canonical name of the model that a slot was taken for.
        """
        ...

    def probe_now(self, endpoint: str) -> None:
        """Something on the endpoint has changed: ask it at once."""
        ...

    async def refresh(self, what: str, max_age: float, timeout: float) -> Snapshot:
        """The fleet, with lists no older than `max_age` seconds where that takes no longer than
        `timeout` seconds. `what` is `models` or `resident`."""
        ...


class RequestConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The rules for requests that arrive from now on.

    `timeouts`: for attempts; `max_body`: bytes of a request body; `aliases`: canonical names by
    canonical name, best first; `refresh_timeout`: seconds that endpoints may be asked again for a
    model that none lists; `context_rule`: what becomes of the context lengths that requests name;
    `strategy`: shown in `X-Olla-Routing-Strategy`; `via`: this router's name in `Via`, by which a
    request that comes back is recognized; `wait_keepalive`: seconds between two comments in a
    stream that waits for its endpoint, 0 for none; `guard`: which requests browsers may send;
    `keep_content`: whether records contain prompts and answers; `log_explanation`: called with each
    request's id and the prices of its candidates.
    """

    timeouts: Timeouts
    max_body: int
    aliases: Mapping[str, tuple[str, ...]]
    refresh_timeout: float
    context_rule: ContextRule = ContextRule()
    strategy: str = ""
    via: str | None = None
    wait_keepalive: float = 0.0
    guard: BrowserGuard = _NO_GUARD
    keep_content: bool = False
    log_explanation: Callable[[str, str], None] | None = None


class Upstreams:
    """The fleet's side of an exchange: which endpoint, the connection to it, and its timers."""

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
        """Numbers requests for routing, which breaks ties by them."""


class Services:
    """What all requests share apart from the fleet."""

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
        """`ids`: request ids that this process alone gives out."""
        self.clock = clock
        self.authenticator = authenticator
        self.sink = sink
        self.ids = ids
        self.body_budget = body_budget
        self.timers = timers
        self.date_header = DateHeader(clock)
        self.response_headers = ResponseHeaders()
        self.time_slices = TimeSlices(clock)

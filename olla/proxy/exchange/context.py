"""What an exchange needs of the rest of the program, handed to it as one object."""

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

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

__all__ = ["Fleet", "Stations"]


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


class Stations:
    """The stations of a request's way, and the limits that hold on it."""

    def __init__(
        self,
        *,
        clock: Clock,
        admission: Admission,
        authenticator: Authenticator,
        fleet: Fleet,
        pool: Pool,
        sink: Sink,
        timeouts: Timeouts,
        max_body: int,
        aliases: Mapping[str, tuple[str, ...]],
        refresh_timeout: float,
        ids: Iterator[str],
        context: ContextRule | None = None,
        explained: Callable[[str, str], None] | None = None,
        via: str | None = None,
        wait_keepalive: float = 0.0,
        bodies_max: int = 1 << 30,
        guard: BrowserGuard | None = None,
    ) -> None:
        """`max_body` is bytes; `aliases` maps canonical names to canonical names, best first;
        `refresh_timeout` says how many seconds endpoints may be asked again for a model that none
        lists; `ids` are request ids that this process alone gives out; `context` is what
        becomes of the context lengths that requests name; `explained`, where there is one, is
        told each request's id and how its candidates were priced; `via` is this router's own name
        in `Via`, by which a request that comes back is known; `wait_keepalive` is the seconds
        between two signs of life while a stream is waited for, 0 for none; `bodies_max` is how many
        bytes of long request bodies may be held in memory together; `guard` decides which requests
        browsers may send (none: those of pages that the router itself serves)."""
        self.clock = clock
        self.admission = admission
        self.authenticator = authenticator
        self.fleet = fleet
        self.pool = pool
        self.sink = sink
        self.timeouts = timeouts
        self.max_body = max_body
        self.aliases = aliases
        self.refresh_timeout = refresh_timeout
        self.context = context or ContextRule()
        self.explained = explained
        self.via = via
        self.strategy = admission.dispatcher.options.strategy.value
        self.response_headers = ResponseHeaders()
        self.dates = DateHeader(clock)
        self.deadlines = TimerWheel()
        self.body_budget = BodyBudget(bodies_max, max_body)
        self.time_slices = TimeSlices(clock)
        self.wait_keepalive = wait_keepalive
        self.guard = guard or BrowserGuard(CorsPolicy(), AllowedHosts(), enabled=False)
        self.tickets = itertools.count()
        self.ids = ids

    def renewed(
        self,
        *,
        timeouts: Timeouts,
        max_body: int,
        aliases: Mapping[str, tuple[str, ...]],
        refresh_timeout: float,
        context: ContextRule,
        wait_keepalive: float,
        bodies_max: int,
        guard: BrowserGuard,
    ) -> "Stations":
        """The same stations with other limits, for requests that come from now on."""
        other = copy.copy(self)
        other.timeouts = timeouts
        other.max_body = max_body
        other.aliases = aliases
        other.refresh_timeout = refresh_timeout
        other.context = context
        other.wait_keepalive = wait_keepalive
        other.guard = guard
        self.body_budget.resize(bodies_max, max_body)
        other.strategy = self.admission.dispatcher.options.strategy.value
        return other

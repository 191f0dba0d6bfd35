"""Expected seconds to a request's first token on one endpoint, term by term.

Shortest expected delay: wait for a slot + drain of busy victims + load, if it must load + prefill
+ what those lose whose model would be evicted. Pure arithmetic over the twin and the estimates;
who is chosen is a policy's business.
"""

from math import exp, inf

import msgspec

from olla.fleet.instance import Line
from olla.fleet.twins import Twins
from olla.routing.features import Features

__all__ = ["Delay", "expected_delay", "price", "work_ahead"]

_EVICTION_HORIZON = 600.0
"""Seconds over which an evicted model is taken to be missed, when it would not have expired."""
_COPY_SHARE = 0.25
"""How much an evicted model is missed when another copy is in memory; the same again for each."""

_LOAD_SHARE = 0.03
"""What a load costs others, per second of it: it holds up the node's next load and takes room. So
one begins for a clear gain only."""
_LAST_RESORT = 1000.0
"""Seconds. A vector is not worth a chat model: only when there is no other way."""


class Delay(msgspec.Struct):
    """The terms, in seconds. `saved` is what a prompt cache is expected to save of `prefill`.

    `eviction` is no delay of the request's own but the cost to others; `total` counts it in.
    """

    wait: float = 0.0
    drain: float = 0.0
    load: float = 0.0
    prefill: float = 0.0
    saved: float = 0.0
    eviction: float = 0.0

    @property
    def total(self) -> float:
        """What is compared."""
        return self.own + self.eviction

    @property
    def own(self) -> float:
        """What the request itself is expected to wait for its first token."""
        return self.wait + self.drain + self.load + self.prefill - self.saved


def price(
    line: Line,
    features: Features,
    twins: Twins,
    now: float,
    ready: bool,
    bound: float = inf,
    terms: Delay | None = None,
) -> float:
    """The delay of a request on a line, in seconds.

    Stops early with a lower bound once that is over `bound`. `terms` is filled in when given;
    `ready` is what `Line.ready` says.
    """
    rates = line.rates
    if rates.stale:
        rates.refresh()
    total = features.prompt_tokens * rates.prefill
    if terms is not None:
        terms.prefill = total
    if ready and not line.draining:
        if features.cached:
            tokens = features.cached.get(line.twin.view.spec.name, 0.0)
            saved = min(tokens, features.prompt_tokens) * rates.prefill
            total -= saved
            if terms is not None:
                terms.saved = saved
        slots = line.slots.limit
        if len(line.flights) < slots and not line.waiting:
            return total
        wait = work_ahead(line, features, now) / slots
        if terms is not None:
            terms.wait = wait
        return total + wait
    if line.waiting:
        wait = _queued(line, features) / line.slots.limit
        total += wait
        if terms is not None:
            terms.wait = wait
    return _cold(line, features, twins, now, total, bound, terms)


def expected_delay(line: Line, features: Features, twins: Twins, now: float) -> Delay:
    """The terms of the delay, none left out."""
    terms = Delay()
    ready = line.ready(features.load_options, now)
    price(line, features, twins, now, ready, inf, terms)
    return terms


def work_ahead(line: Line, features: Features, now: float) -> float:
    """Slot-seconds of work that come before the request on a line whose model is in memory."""
    flights, slots = line.flights, line.slots.limit
    ahead = 0.0
    count = len(flights)
    if count >= slots:
        for flight in flights:
            ahead += flight.left(now)
        # A slot is free when the first of them is done, not when all are.
        ahead *= (count - slots + 1) / count
    return ahead + _queued(line, features)


def _queued(line: Line, features: Features) -> float:
    """Seconds of service of those that wait in olla for the line and come before the request."""
    order, total = features.order, 0.0
    for each in line.waiting:  # by their order: of a long queue the first ones look at little
        if each.order >= order:
            break
        total += each.work
    return total


def _cold(
    line: Line,
    features: Features,
    twins: Twins,
    now: float,
    total: float,
    bound: float,
    terms: Delay | None,
) -> float:
    """The same for a model that has to be loaded, or is being loaded."""
    twin = line.twin
    options = features.load_options
    loading = twin.loading
    load = 0.0
    if loading is not None:
        load = loading.left(now)
        if loading.line is line and loading.options == options:
            if terms is not None:
                terms.load = load
            return total + load
    for pending in twin.pending:
        load += pending.line.load_seconds(now)
        if pending.line is line and pending.options == options:
            if terms is not None:
                terms.load = load
            return total + load
    for other, seconds in twin.wanted.items():
        if other is not line:
            load += seconds
    own = line.load_seconds(now)
    load += own
    total += load
    if terms is not None:
        terms.load = load
    if total > bound:
        return total
    drain = 0.0
    eviction = 0.0 if line in twin.wanted else own * _LOAD_SHARE
    for victim in twin.victims(line, options):
        for flight in victim.flights:
            drain = max(drain, flight.left(now))
        if line not in twin.wanted:
            eviction += missed(victim, twins, now)
            if line.embedding and not victim.embedding:
                eviction += _LAST_RESORT
    if terms is not None:
        terms.drain, terms.eviction = drain, eviction
    return total + drain + eviction


def missed(victim: Line, twins: Twins, now: float) -> float:
    """Expected seconds that requests for an evicted model lose.

    The next request loads it again: a load, times the chance that one comes before the model
    would have been unloaded anyway. Those that come during the load wait for half of it.
    """
    rate = victim.habits.arrivals.rate(now)
    if rate <= 0.0:
        return 0.0
    load = victim.rates.load_seconds(warm=True)
    horizon = min(victim.keep_alive, _EVICTION_HORIZON)
    cost = load * (1 - exp(-rate * horizon)) + rate * load * load / 2
    copies = twins.copies(victim)
    return cost * _COPY_SHARE**copies if copies else cost

"""Expected seconds to a request's first token on one endpoint, term by term.

Shortest expected delay: wait for a slot + drain of busy victims + load, if it must load + prefill
+ what those lose whose model would be evicted. Pure arithmetic over the twin and the estimates;
who is chosen is a policy's business.
"""

from math import exp, inf

import msgspec

from olla.fleet.instance import ModelInstance
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
    instance: ModelInstance,
    features: Features,
    twins: Twins,
    now: float,
    ready: bool,
    bound: float = inf,
    terms: Delay | None = None,
) -> float:
    """The delay of a request on a line, in seconds.

    Stops early with a lower bound once that is over `bound`. `terms` is filled in when given;
    `ready` is what `ModelInstance.ready` says.
    """
    rates = instance.rates
    if rates.stale:
        rates.refresh()
    total = features.prompt_tokens * rates.prefill
    if terms is not None:
        terms.prefill = total
    if ready and not instance.draining:
        if features.cached:
            tokens = features.cached.get(instance.twin.view.spec.name, 0.0)
            saved = min(tokens, features.prompt_tokens) * rates.prefill
            total -= saved
            if terms is not None:
                terms.saved = saved
        slots = instance.slots.limit
        if len(instance.in_flight) < slots and not instance.waiting:
            return total
        wait = work_ahead(instance, features, now) / slots
        if terms is not None:
            terms.wait = wait
        return total + wait
    if instance.waiting:
        wait = _queued(instance, features) / instance.slots.limit
        total += wait
        if terms is not None:
            terms.wait = wait
    return _cold(instance, features, twins, now, total, bound, terms)


def expected_delay(instance: ModelInstance, features: Features, twins: Twins, now: float) -> Delay:
    """The terms of the delay, none left out."""
    terms = Delay()
    ready = instance.ready(features.load_options, now)
    price(instance, features, twins, now, ready, inf, terms)
    return terms


def work_ahead(instance: ModelInstance, features: Features, now: float) -> float:
    """Slot-seconds of work that come before the request on a line whose model is in memory."""
    in_flight, slots = instance.in_flight, instance.slots.limit
    ahead = 0.0
    count = len(in_flight)
    if count >= slots:
        for flight in in_flight:
            ahead += flight.left(now)
        # A slot is free when the first of them is done, not when all are.
        ahead *= (count - slots + 1) / count
    return ahead + _queued(instance, features)


def _queued(instance: ModelInstance, features: Features) -> float:
    """Seconds of service of those that wait in olla for the line and come before the request."""
    order, total = features.order, 0.0
    for each in instance.waiting:  # by their order: of a long queue the first ones look at little
        if each.order >= order:
            break
        total += each.work
    return total


def _cold(
    instance: ModelInstance,
    features: Features,
    twins: Twins,
    now: float,
    total: float,
    bound: float,
    terms: Delay | None,
) -> float:
    """The same for a model that has to be loaded, or is being loaded."""
    twin = instance.twin
    options = features.load_options
    loading = twin.loading
    load = 0.0
    if loading is not None:
        load = loading.left(now)
        if loading.instance is instance and loading.options == options:
            if terms is not None:
                terms.load = load
            return total + load
    for pending in twin.pending:
        load += pending.instance.load_seconds(now)
        if pending.instance is instance and pending.options == options:
            if terms is not None:
                terms.load = load
            return total + load
    for other, seconds in twin.wanted.items():
        if other is not instance:
            load += seconds
    own = instance.load_seconds(now)
    load += own
    total += load
    if terms is not None:
        terms.load = load
    if total > bound:
        return total
    drain = 0.0
    eviction = 0.0 if instance in twin.wanted else own * _LOAD_SHARE
    for victim in twin.victims(instance, options):
        for flight in victim.in_flight:
            drain = max(drain, flight.left(now))
        if instance not in twin.wanted:
            eviction += missed(victim, twins, now)
            if instance.embedding and not victim.embedding:
                eviction += _LAST_RESORT
    if terms is not None:
        terms.drain, terms.eviction = drain, eviction
    return total + drain + eviction


def missed(victim: ModelInstance, twins: Twins, now: float) -> float:
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

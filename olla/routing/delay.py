"""Compute the expected seconds to a request's first token on an endpoint, term by term.

Shortest expected delay: wait for a slot + drain of busy models before an eviction + load, if the
model is not loaded + prefill + the loss of requests whose model would be evicted. Pure arithmetic
over the twin and the estimates. A policy compares the results.
"""

from math import exp, inf

import msgspec

from olla.fleet.instance import ModelInstance
from olla.fleet.twins import Twins
from olla.routing.features import Features

__all__ = ["Delay", "expected_delay", "price", "work_ahead"]

_EVICTION_HORIZON = 600.0
"""Seconds for which an evicted model is assumed to be missed if it would not have expired."""
_COPY_SHARE = 0.25
"""The share of the loss if another copy is loaded; applied again for each further copy."""

_LOAD_SHARE = 0.03
"""The cost to others per second of a load: it delays the node's next load and takes memory. A load
thus starts only for a clear gain."""
_LAST_RESORT = 1000.0
"""Seconds. A request for a vector evicts a chat model only if there is no other way."""


class Delay(msgspec.Struct):
    """The terms, in seconds. `saved` is the expected saving of `prefill` by a prompt cache.

    `eviction` is a cost to others instead of a delay of the request; `total` includes it.
    """

    wait: float = 0.0
    drain: float = 0.0
    load: float = 0.0
    prefill: float = 0.0
    saved: float = 0.0
    eviction: float = 0.0

    @property
    def total(self) -> float:
        """The value that policies compare."""
        return self.own + self.eviction

    @property
    def own(self) -> float:
        """The expected time to the request's own first token."""
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
    """Return the delay of a request at an instance, in seconds.

    Stops early with a lower bound if that exceeds `bound`. Fills in `terms` if given. `ready` is
    the result of `ModelInstance.ready`.
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
    """Return all terms of the delay."""
    terms = Delay()
    ready = instance.ready(features.load_options, now)
    price(instance, features, twins, now, ready, inf, terms)
    return terms


def work_ahead(instance: ModelInstance, features: Features, now: float) -> float:
    """Return the slot-seconds of work before the request, at an instance with a loaded model."""
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
    """Return the service seconds of queued requests for the instance that precede the request."""
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
    """Return the same for a model that is not loaded, or is being loaded."""
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
    """Return the expected seconds that requests for an evicted model lose.

    The next request loads it again. The loss is the load time, multiplied by the probability that a
    request comes before the model would have expired. Requests that come during the load wait for
    half of it.
    """
    rate = victim.habits.arrivals.rate(now)
    if rate <= 0.0:
        return 0.0
    load = victim.rates.load_seconds(warm=True)
    horizon = min(victim.keep_alive, _EVICTION_HORIZON)
    cost = load * (1 - exp(-rate * horizon)) + rate * load * load / 2
    copies = twins.copies(victim)
    return cost * _COPY_SHARE**copies if copies else cost

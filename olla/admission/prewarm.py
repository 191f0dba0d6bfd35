"""Decide whether another copy of a model is worth its load, before requests wait for it.

Shortest expected delay considers one request at a time: a model once loaded on a slow node stays
there, because no single request gains by a load. Prewarming considers the gain for all requests of
the next minutes. For each model it compares the expected wait and prefill on the endpoints with a
loaded copy to those after another load, charges the losses of evicted models, and proposes the load
that saves most seconds, if that is clearly more than it takes.
"""

from collections.abc import Sequence
from math import sqrt

import msgspec

from olla.fleet.breaker import BreakerState
from olla.fleet.instance import ModelInstance
from olla.fleet.twins import Twins
from olla.routing.decision import RoutingOptions
from olla.routing.delay import missed
from olla.routing.features import Features

__all__ = ["Proposal", "expected_wait", "propose"]

_HORIZON = 300.0
"""Seconds in which a copy must pay for its load: Ollama's default keep-alive."""
_MARGIN = 2.0
"""A load must save this multiple of its own seconds."""
_MODELS_MAX = 8
_LINES_MAX = 32
"""Limits of each check: the models whose requests lose most, and their instances."""
_COMFORTABLE = 0.7
"""Up to this utilisation the fastest endpoint is assumed to serve all its requests."""
_SATURATED = 0.98
_RARE = 2.0
"""With fewer requests within the horizon, a model is not considered."""


class Proposal(msgspec.Struct, frozen=True):
    """Load `instance`'s model with the given options; `saves` is in seconds over the horizon."""

    instance: ModelInstance
    options: tuple[tuple[str, float], ...]
    saves: float

    @property
    def features(self) -> Features:
        """Return a request that needs that load."""
        instance = self.instance
        return Features(
            models=(instance.model,),
            dialect="ollama",
            load_options=self.options,
            embedding=instance.embedding,
        )


def expected_wait(rate: float, instances: Sequence[tuple[float, float, int]]) -> float:
    """Return the expected seconds to the first token at a rate of requests.

    `rate` requests per second share instances of `(prefill, service, slots)`, with prefill and
    service in seconds. The wait is Sakasegawa's approximation of a queue with several servers
    (1977). Prefill assumes that the fastest instances are filled first. Beyond saturation the
    result grows steeply with the excess.
    """
    if not instances:
        return 0.0
    slots = sum(each[2] for each in instances)
    capacity = sum(count / max(service, 1e-6) for _, service, count in instances)
    load = rate / capacity
    use = min(load, _SATURATED)
    service = slots / capacity
    wait: float = service * use ** (sqrt(2 * (slots + 1)) - 1) / (slots * (1 - use))
    if load > _SATURATED:
        wait *= 1 + 10 * (load - _SATURATED)
    left, prefill = rate, 0.0
    for seconds, each_service, count in sorted(instances):
        taken = min(left, _COMFORTABLE * count / max(each_service, 1e-6))
        prefill += taken * seconds
        left -= taken
    if left > 0:
        prefill += left * sum(each[0] for each in instances) / len(instances)
    return wait + prefill / rate


def propose(twins: Twins, options: RoutingOptions, now: float) -> Proposal | None:
    """Return the load that would save most, or None if none is worth it."""
    best: Proposal | None = None
    for rate, instances in _worst_off(twins, now):
        there = [instance for instance in instances if instance.resident and _usable(instance)]
        if not there:
            continue  # cold everywhere: whoever asks has it loaded
        before = expected_wait(rate, [_shape(instance) for instance in there])
        like = max(there, key=lambda instance: instance.used_at)
        wanted = like.options or ()
        tier = max(twins.tier(instance.twin.view) for instance in there)
        for instance in instances[:_LINES_MAX]:
            if not _free_for(instance, options, twins, tier):
                continue
            after = expected_wait(rate, [*map(_shape, there), _shape(instance)])
            saves = rate * _HORIZON * (before - after)
            load = instance.load_seconds(now)
            if saves < _MARGIN * load or (best is not None and saves < best.saves):
                continue
            victims = instance.twin.victims(instance, wanted)
            if any(each.in_flight or each.waiting or each.used_at < 0 for each in victims):
                continue  # busy, or somebody else's
            saves -= sum(_loss(each, twins, now) for each in victims)
            if saves >= _MARGIN * load and (best is None or saves > best.saves):
                best = Proposal(instance, wanted, saves)
    return best


def _worst_off(twins: Twins, now: float) -> list[tuple[float, Sequence[ModelInstance]]]:
    """Return arrival rates and instances of the models whose requests lose most, worst first."""
    rows: list[tuple[float, float, Sequence[ModelInstance]]] = []
    for instances in twins.models():
        rate = instances[0].habits.arrivals.rate(now)
        if rate * _HORIZON < _RARE or len(instances) < 2:
            continue
        there = [
            _shape(instance) for instance in instances if instance.resident and _usable(instance)
        ]
        if not there:
            continue
        ideal = min(
            instance.habits.prompt_tokens * instance.rates.prefill for instance in instances
        )
        rows.append((rate * (expected_wait(rate, there) - ideal), rate, instances))
    rows.sort(key=lambda row: -row[0])
    return [(rate, instances) for _, rate, instances in rows[:_MODELS_MAX]]


def _shape(instance: ModelInstance) -> tuple[float, float, int]:
    tokens = instance.habits.prompt_tokens
    return tokens * instance.rates.prefill, instance.service(tokens), instance.slots.limit


def _usable(instance: ModelInstance) -> bool:
    view = instance.twin.view
    return view.health.routable and view.breaker is BreakerState.CLOSED


def _free_for(instance: ModelInstance, options: RoutingOptions, twins: Twins, tier: int) -> bool:
    """Return whether a load there would not disturb other requests."""
    twin = instance.twin
    if (
        instance.resident
        or not instance.ownable
        or not twin.tells_residency
        or not _usable(instance)
    ):
        return False
    if twin.loading is not None or twin.pending or twin.wanted:
        return False
    reserved = options.embedding_endpoints
    if reserved and (twin.name in reserved) is not instance.embedding:
        return False
    return twins.tier(twin.view) <= tier


def _loss(victim: ModelInstance, twins: Twins, now: float) -> float:
    """Return the seconds that requests for an evicted model lose over the horizon."""
    rate = victim.habits.arrivals.rate(now)
    others = [
        _shape(instance)
        for instance in twins.instances(victim.model)
        if instance is not victim and instance.resident and _usable(instance)
    ]
    if not others:
        return 4 * missed(victim, twins, now)
    before = expected_wait(rate, [*others, _shape(victim)]) if rate > 0 else 0.0
    return rate * _HORIZON * (expected_wait(rate, others) - before) if rate > 0 else 0.0

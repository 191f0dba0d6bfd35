"""Whether one more copy of a model is worth its load, before anybody waits for it.

Shortest expected delay looks at one request at a time: a model that once was loaded on a slow
node stays there, because no single request gains by a load. Placement looks at what all requests
of the next minutes would gain. For each model it compares the expected wait and prefill on the
endpoints that have it in memory with those after one more load, charges what the evicted lose,
and proposes the load that saves the most seconds, if any saves clearly more than it takes.
"""

from collections.abc import Sequence
from math import sqrt

import msgspec

from olla.fleet.breaker import BreakerState
from olla.fleet.instance import Line
from olla.fleet.twins import Twins
from olla.routing.decision import RoutingOptions
from olla.routing.delay import missed
from olla.routing.features import Features

__all__ = ["Proposal", "expected_wait", "propose"]

_HORIZON = 300.0
"""Seconds over which a copy is to pay for its load: Ollama's usual keep-alive."""
_MARGIN = 2.0
"""How many times its own seconds a load must save."""
_MODELS_MAX = 8
_LINES_MAX = 32
"""Bounds on what is looked at each time: the models whose requests lose most, and their lines."""
_COMFORTABLE = 0.7
"""Up to this utilisation the fastest endpoint is taken to serve all it gets."""
_SATURATED = 0.98
_RARE = 2.0
"""Requests within the horizon below which a model is not worth a thought."""


class Proposal(msgspec.Struct, frozen=True):
    """Load `line`'s model with the given options; `saves` is in seconds over the horizon."""

    line: Line
    options: tuple[tuple[str, float], ...]
    saves: float

    @property
    def features(self) -> Features:
        """A request that asks for that load."""
        line = self.line
        return Features(
            models=(line.model,),
            dialect="ollama",
            load_options=self.options,
            embedding=line.embedding,
        )


def expected_wait(rate: float, lines: Sequence[tuple[float, float, int]]) -> float:
    """Expected seconds to the first token when `rate` requests a second share lines of
    `(prefill, service, slots)`, prefill and service in seconds.

    Waiting by Sakasegawa's approximation of a queue with several servers (1977), prefill by
    filling the fastest lines first. Beyond saturation it grows with the excess, steeply.
    """
    if not lines:
        return 0.0
    slots = sum(each[2] for each in lines)
    capacity = sum(count / max(service, 1e-6) for _, service, count in lines)
    load = rate / capacity
    use = min(load, _SATURATED)
    service = slots / capacity
    wait: float = service * use ** (sqrt(2 * (slots + 1)) - 1) / (slots * (1 - use))
    if load > _SATURATED:
        wait *= 1 + 10 * (load - _SATURATED)
    left, prefill = rate, 0.0
    for seconds, each_service, count in sorted(lines):
        taken = min(left, _COMFORTABLE * count / max(each_service, 1e-6))
        prefill += taken * seconds
        left -= taken
    if left > 0:
        prefill += left * sum(each[0] for each in lines) / len(lines)
    return wait + prefill / rate


def propose(twins: Twins, options: RoutingOptions, now: float) -> Proposal | None:
    """The load that would save most, or None when none is worth it."""
    best: Proposal | None = None
    for rate, lines in _worst_off(twins, now):
        there = [line for line in lines if line.resident and _usable(line)]
        if not there:
            continue  # cold everywhere: whoever asks has it loaded
        before = expected_wait(rate, [_shape(line) for line in there])
        like = max(there, key=lambda line: line.used_at)
        wanted = like.options or ()
        tier = max(twins.tier(line.twin.view) for line in there)
        for line in lines[:_LINES_MAX]:
            if not _free_for(line, options, twins, tier):
                continue
            after = expected_wait(rate, [*map(_shape, there), _shape(line)])
            saves = rate * _HORIZON * (before - after)
            load = line.load_seconds(now)
            if saves < _MARGIN * load or (best is not None and saves < best.saves):
                continue
            victims = line.twin.victims(line, wanted)
            if any(each.flights or each.waiting or each.used_at < 0 for each in victims):
                continue  # busy, or somebody else's
            saves -= sum(_loss(each, twins, now) for each in victims)
            if saves >= _MARGIN * load and (best is None or saves > best.saves):
                best = Proposal(line, wanted, saves)
    return best


def _worst_off(twins: Twins, now: float) -> list[tuple[float, Sequence[Line]]]:
    """Arrivals per second and lines of the models whose requests lose most, worst first."""
    rows: list[tuple[float, float, Sequence[Line]]] = []
    for lines in twins.models():
        rate = lines[0].habits.arrivals.rate(now)
        if rate * _HORIZON < _RARE or len(lines) < 2:
            continue
        there = [_shape(line) for line in lines if line.resident and _usable(line)]
        if not there:
            continue
        ideal = min(line.habits.prompt_tokens * line.rates.prefill for line in lines)
        rows.append((rate * (expected_wait(rate, there) - ideal), rate, lines))
    rows.sort(key=lambda row: -row[0])
    return [(rate, lines) for _, rate, lines in rows[:_MODELS_MAX]]


def _shape(line: Line) -> tuple[float, float, int]:
    tokens = line.habits.prompt_tokens
    return tokens * line.rates.prefill, line.service(tokens), line.slots.limit


def _usable(line: Line) -> bool:
    view = line.twin.view
    return view.health.routable and view.breaker is BreakerState.CLOSED


def _free_for(line: Line, options: RoutingOptions, twins: Twins, tier: int) -> bool:
    """Whether a load on the line would be in nobody's way."""
    twin = line.twin
    if line.resident or not line.ownable or not twin.tells_residency or not _usable(line):
        return False
    if twin.loading is not None or twin.pending or twin.wanted:
        return False
    reserved = options.embedding_endpoints
    if reserved and (twin.name in reserved) is not line.embedding:
        return False
    return twins.tier(twin.view) <= tier


def _loss(victim: Line, twins: Twins, now: float) -> float:
    """Seconds that requests for an evicted model lose over the horizon."""
    rate = victim.habits.arrivals.rate(now)
    others = [
        _shape(line)
        for line in twins.lines(victim.model)
        if line is not victim and line.resident and _usable(line)
    ]
    if not others:
        return 4 * missed(victim, twins, now)
    before = expected_wait(rate, [*others, _shape(victim)]) if rate > 0 else 0.0
    return rate * _HORIZON * (expected_wait(rate, others) - before) if rate > 0 else 0.0

"""Replay a recorded decision log on a simulated fleet under another policy.

The fleet is built from what the router learned of the real one: rates, memory, load bandwidths,
slots. Requests arrive at their recorded times, with their recorded lengths. The result is as good
as these estimates; a replay of the recorded policy shows how good that is.
"""

from collections.abc import Iterable, Sequence
from typing import assert_never

import msgspec

from olla.admission.dispatcher import Dispatcher
from olla.admission.rejections import QueueLimits
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.model_names import canonical
from olla.routing.decision import RoutingOptions
from olla.routing.journal import Decided, EndpointFacts, FleetFacts, JournalLine
from olla.routing.policy import Policy
from olla.simulation.events import NodeLimits
from olla.simulation.fleet import FleetRun
from olla.simulation.machine import Arrival, Machine
from olla.simulation.model_catalogue import ModelSpec

__all__ = ["Figures", "Journal", "JournalError", "read_journal", "recorded", "replay"]

_CONTEXT = 8192
_PROMPT, _OUTPUT = 500, 200
"""Tokens of a request without counts."""


class JournalError(ValueError):
    """The file is no decision log; the text says where and why."""


class Journal(msgspec.Struct, frozen=True):
    """A decision log: the fleet as it was known last, and the requests in order of arrival."""

    fleet: FleetFacts
    requests: tuple[Decided, ...]


class Figures(msgspec.Struct, frozen=True):
    """Seconds to the first token (mean, median, 95th and 99th percentile), to the last (mean);
    loads (None where nobody counted), and how many requests there were and got no answer."""

    name: str
    mean: float
    p50: float
    p95: float
    p99: float
    whole: float
    loads: int | None
    requests: int
    unanswered: int


_DECODER = msgspec.json.Decoder(JournalLine)
_BEGINNING = b'{"kind":"'


def read_journal(lines: Iterable[bytes]) -> Journal:
    """Read a log; lines that were not written to their end are passed over.

    Raises:
        JournalError: a line is none of a decision log, or there is no fleet or no request.
    """
    fleet: FleetFacts | None = None
    requests: list[Decided] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or not line.endswith(b"\n"):
            continue
        try:
            read: JournalLine = _DECODER.decode(line)
        except msgspec.MsgspecError as error:
            if not isinstance(error, msgspec.ValidationError) and _broken_off(line):
                continue
            raise JournalError(f"line {number} is no line of a decision log: {error}") from None
        match read:
            case FleetFacts():
                fleet = read
            case Decided():
                requests.append(read)
            case never:
                assert_never(never)
    if fleet is None or not requests:
        raise JournalError("there is no fleet or no request in it")
    return Journal(fleet, tuple(sorted(requests, key=lambda each: each.at)))


def _broken_off(line: bytes) -> bool:
    """Whether this is the beginning of a line, as a disk leaves it that was full for a while."""
    return _BEGINNING.startswith(line.rstrip(b"\n")[: len(_BEGINNING)])


def recorded(journal: Journal) -> Figures:
    """What really happened."""
    answered = [each for each in journal.requests if each.status == 200 and each.first is not None]
    return _figures(
        f"recorded ({journal.fleet.policy})",
        [each.first for each in answered if each.first is not None],
        [each.whole for each in answered if each.whole is not None],
        None,
        len(journal.requests),
        len(journal.requests) - len(answered),
    )


def replay(journal: Journal, policy: Policy, options: RoutingOptions | None = None) -> Figures:
    """What would have happened under a policy, from a cold start."""
    machines = [_machine(each) for each in journal.fleet.endpoints]
    known = {canonical(model.name) for one in machines for model in one.models}
    arrivals = [
        _arrival(each, journal.requests[0].at)
        for each in journal.requests
        if canonical(each.model) in known
    ]
    run = FleetRun(
        machines, arrivals, Dispatcher(policy, options or RoutingOptions(), QueueLimits())
    )
    run.run()
    return _figures(
        policy.name,
        [each.delay for each in run.results if each.delay is not None],
        [
            each.ended - each.arrival.at
            for each in run.results
            if each.outcome == "done" and each.ended is not None
        ],
        run.loads,
        len(journal.requests),
        sum(each.outcome != "done" for each in run.results) + len(journal.requests) - len(arrivals),
    )


def _machine(facts: EndpointFacts) -> Machine:
    models = tuple(
        ModelSpec(
            each.name,
            int(each.size),
            digest=each.identity,
            context=_CONTEXT,
            embedding=each.embedding,
        )
        for each in facts.models
    )
    slots = max((each.slots for each in facts.models), default=1)
    needed = sum(each.size for each in models)
    memory = facts.memory if facts.ollama and facts.memory is not None else needed * 4.0 + 1e9
    return Machine(
        EndpointSpec(
            facts.name,
            facts.name,
            1,
            priority=facts.priority,
            num_parallel=slots,
            vram=int(memory),
            max_loaded_models=facts.max_loaded,
        ),
        NodeLimits(
            vram=int(memory),
            num_parallel=slots,
            max_loaded_models=facts.max_loaded if facts.ollama else max(1, len(models)),
            load_bandwidth=facts.cold_bandwidth,
            warm_bandwidth=facts.warm_bandwidth,
        ),
        prefill=1e13,
        decode=4e11,
        models=models,
        rates=tuple(
            (canonical(each.name), each.prompt_rate, each.output_rate) for each in facts.models
        ),
    )


def _arrival(request: Decided, start: float) -> Arrival:
    embedding = request.operation == "embed"
    output = 1 if embedding else _OUTPUT
    return Arrival(
        request.at - start,
        request.model,
        request.prompt_tokens or _PROMPT,
        request.output_tokens or output,
        options=request.load_options,
        embedding=embedding,
    )


def _figures(
    name: str,
    delays: Sequence[float],
    whole: Sequence[float],
    loads: int | None,
    requests: int,
    unanswered: int,
) -> Figures:
    ordered = sorted(delays) or [0.0]
    p50, p95, p99 = (
        ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.95, 0.99)
    )
    mean = sum(ordered) / len(ordered)
    whole_mean = sum(whole) / len(whole) if whole else 0.0
    return Figures(name, mean, p50, p95, p99, whole_mean, loads, requests, unanswered)

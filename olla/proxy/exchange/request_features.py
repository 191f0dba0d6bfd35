"""Extract a request's features for routing and a response's statistics for the estimates, and
format routing explanations for clients."""

from math import inf
from typing import Final

from olla.access.caller import Caller
from olla.access.visibility import Visibility
from olla.admission.queue_types import AnswerStats
from olla.dialects.dialect import Operation, Peek, Right, Summary
from olla.dialects.paths import Target
from olla.fleet.model_names import canonical
from olla.proxy.exchange.context import RequestConfig, Upstreams
from olla.proxy.http.headers import header_value
from olla.proxy.http.request import IncomingRequest
from olla.routing.affinity import CUTS, prefix_blocks
from olla.routing.decision import Considered
from olla.routing.features import Features

__all__ = ["answer_stats", "explain_routing", "features_of", "format_explanation"]

_EXPLAINED_MAX = 32
"""Endpoints in an explanation: a header must fit into clients' limits."""
_EMBED: Final = Operation.EMBED
_OTHER: Final = Operation.OTHER
_LIST: Final = Right.LIST


def features_of(
    config: RequestConfig,
    upstreams: Upstreams,
    target: Target,
    incoming: IncomingRequest,
    peek: Peek,
    caller: Caller,
) -> Features:
    """Return the features of a request that routing uses."""
    prompt = peek.prompt
    models = _models(config, upstreams, target, peek)
    prompt_bytes = len(prompt) if prompt is not None else 0
    tokens = 0.0
    prefix: tuple[int, ...] = ()
    if models and prompt is not None:
        habits = upstreams.admission.dispatcher.twins.habits(models[0])
        tokens = habits.tokens(prompt_bytes) if habits is not None else 0.0
        if prompt_bytes >= CUTS[0]:
            prefix = prefix_blocks(prompt)
    return Features(
        models,
        target.dialect.name,
        target.profiles,
        (),
        None if incoming.plain else incoming.header("X-Olla-Endpoint"),
        next(upstreams.tickets),
        peek.load_options,
        peek.keep_alive,
        tokens,
        inf if peek.output_max is None else float(peek.output_max),
        {},
        target.operation is _EMBED,
        peek.only_loads,
        prefix,
        prompt_bytes,
        caller.id,
        inf,
        caller.endpoints,
        target.also,
        caller.models is None and _LIST in caller.rights,
    )


def _models(
    config: RequestConfig, upstreams: Upstreams, target: Target, peek: Peek
) -> tuple[str, ...]:
    if peek.model is None:
        return ()
    name = canonical(peek.model)
    known = config.aliases.get(name) or (name,)
    if target.needs_model:
        return known
    if target.operation is not _OTHER:
        return ()
    # A request with an unknown path may name a known model.
    holders = upstreams.fleet.snapshot.holders
    return known if any(model in holders for model in known) else ()


def answer_stats(features: Features, summary: Summary, *, streamed: bool) -> AnswerStats:
    """Return the statistics of a complete response."""
    return AnswerStats(
        features.prompt_bytes,
        summary.prompt_tokens,
        summary.output_tokens,
        summary.prompt_seconds,
        summary.output_seconds,
        summary.load_seconds,
        summary.total_seconds,
        streamed,
    )


def explain_routing(upstreams: Upstreams, features: Features, visible: Visibility) -> str:
    """Return the current expected delays of a request's candidates that are `visible`.

    See `format_explanation` for the format.
    """
    dispatcher = upstreams.admission.dispatcher
    now = upstreams.clock.now()
    rows = dispatcher.explained(features, upstreams.fleet.snapshot, now)
    return format_explanation([row for row in rows if visible.sees_endpoint(row.endpoint)])


def format_explanation(rows: list[Considered]) -> str:
    """Format the candidates and their expected delays, best first, as one header value.

    For example `gpu-1=0.412s(prefill=0.310 wait=0.102); gpu-2=12.300s(load=12.000 prefill=0.300);
    gpu-3:unroutable`.
    """
    parts: list[str] = []
    for row in rows[:_EXPLAINED_MAX]:
        name = header_value(row.endpoint)
        if row.delay is None:
            why = row.exclusion.value if row.exclusion is not None else "no_model_needed"
            parts.append(f"{name}:{why}")
            continue
        terms = {
            "wait": row.delay.wait,
            "drain": row.delay.drain,
            "load": row.delay.load,
            "prefill": row.delay.prefill,
            "saved": -row.delay.saved,
            "eviction": row.delay.eviction,
            "spillover": row.spillover,
        }
        shown = " ".join(f"{term}={value:.3f}" for term, value in terms.items() if value)
        total = row.delay.total + row.spillover
        parts.append(f"{name}={total:.3f}s({shown})")
    left = len(rows) - _EXPLAINED_MAX
    return "; ".join([*parts, f"{left} more"] if left > 0 else parts)

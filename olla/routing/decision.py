"""Choose one endpoint with a reason, or refuse with a reason.

Pure: filter, order, choose, without memory. A retry decides again with the failed endpoint in
`tried`. The outcomes are a closed union: code that distinguishes them uses `match` and ends with
`assert_never`, so that mypy reports a missing case. An `if` chain without a fallback once lost a
queued request.
"""

import enum
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Final

import msgspec

from olla.failures import Failure, Kind
from olla.fleet.health import Health
from olla.fleet.instance import ModelInstance
from olla.fleet.model_names import display
from olla.fleet.snapshot import EndpointView, Snapshot
from olla.fleet.twin import Twin
from olla.fleet.twins import Twins
from olla.routing.candidates import (
    Candidate,
    Exclusion,
    candidates,
    exclusion,
    reluctance,
    speaks,
)
from olla.routing.delay import Delay, expected_delay
from olla.routing.features import Features
from olla.routing.policy import Policy

__all__ = [
    "Choice",
    "ChooseEndpoint",
    "ChooseFallback",
    "ChooseInstance",
    "Considered",
    "Decision",
    "Fallback",
    "Reason",
    "Refuse",
    "RoutingOptions",
    "Strategy",
    "decide",
    "explain",
    "refusal",
]

_RETRY_AFTER_MIN = 1.0
_RETRY_AFTER_MAX = 30.0
_COMPARED_MAX = 300
"""How many model names an unknown one is compared with: 10 µs each."""
_NAME_COMPARED_MAX = 100
"""Seconds. OpenAI's clients sleep for the whole time, so keep it short."""


class Strategy(enum.Enum):
    """The treatment of a model that no endpoint lists. The value is the header's word."""

    STRICT = "strict"
    """Refuse. The caller refreshes the lists of models first."""
    OPTIMISTIC = "optimistic"
    """Possibly fall back to endpoints that do not list it; see `Fallback`."""
    DISCOVERY = "discovery"
    """The same as strict, which refreshes as well."""


class Fallback(enum.Enum):
    """The destination of a model that no endpoint lists, in the optimistic strategy."""

    NONE = "none"
    COMPATIBLE_ONLY = "compatible_only"
    """None: an endpoint that does not list a model is not compatible with it."""
    ALL = "all"
    """Any routable endpoint of the right type."""


class RoutingOptions(msgspec.Struct, frozen=True):
    """Options for models that no endpoint lists, and for endpoints with a special role.

    `spillover`: an endpoint of a lower priority is used if it is sooner by more than this number of
    seconds. `embedding_endpoints` are the names of endpoints reserved for embeddings. With
    `prewarm`, another copy of a model may be loaded before requests wait for it.
    """

    strategy: Strategy = Strategy.STRICT
    fallback: Fallback = Fallback.COMPATIBLE_ONLY
    spillover: float = 2.0
    embedding_endpoints: frozenset[str] = frozenset()
    prewarm: bool = True


class Reason(enum.Enum):
    """The reason for a decision. The value is the header's word."""

    MODEL_FOUND = "model_found"
    QUEUED = "queued"
    QUEUE_FULL = "queue_full"
    MODEL_LOADED = "model_loaded"
    MODEL_LOADING = "model_loading"
    COLD_LOAD = "cold_load"
    NO_MODEL = "no_model_needed"
    FALLBACK = "model_not_found_fallback"
    MODEL_NOT_FOUND = "model_not_found"
    MODEL_UNAVAILABLE = "model_unavailable"
    NO_ENDPOINT = "no_endpoint"


_MODEL_FOUND: Final = Reason.MODEL_FOUND
_MODEL_LOADED: Final = Reason.MODEL_LOADED


class ChooseInstance(msgspec.Struct, frozen=True):
    """Send the request to an endpoint that has the model.

    `model` is the canonical name that the endpoint lists, and `instance` the model there. `delay`
    is the expected seconds to the first token, None if the policy does not compute it. `ready`: the
    model is loaded with the options of the request.
    """

    twin: Twin
    instance: ModelInstance
    model: str
    reason: Reason
    delay: float | None = None
    ready: bool = False

    @property
    def view(self) -> EndpointView:
        """The endpoint's view in the snapshot."""
        return self.twin.view


class ChooseEndpoint(msgspec.Struct, frozen=True):
    """Send a request without a model to an endpoint."""

    twin: Twin
    reason: Reason = Reason.NO_MODEL

    @property
    def view(self) -> EndpointView:
        """The endpoint's view in the snapshot."""
        return self.twin.view


class ChooseFallback(msgspec.Struct, frozen=True):
    """Send the request to an endpoint that does not list the model, because no other can serve
    it."""

    twin: Twin
    reason: Reason = Reason.FALLBACK

    @property
    def view(self) -> EndpointView:
        """The endpoint's view in the snapshot."""
        return self.twin.view


class Refuse(msgspec.Struct, frozen=True):
    """Refuse the request."""

    failure: Failure
    reason: Reason


Choice = ChooseInstance | ChooseEndpoint | ChooseFallback
Decision = Choice | Refuse


class Considered(msgspec.Struct, frozen=True):
    """An endpoint in the result of `explain`: its place and delay, or why it is not a candidate.

    `spillover` is the charge for its priority in seconds. `waiting` counts the requests queued in
    olla for the model there.
    """

    endpoint: str
    key: tuple[float, ...] | None = None
    delay: Delay | None = None
    spillover: float = 0.0
    waiting: int = 0
    exclusion: Exclusion | None = None


def decide(
    features: Features,
    twins: Twins,
    policy: Policy,
    options: RoutingOptions,
    asked_for: str,
    now: float,
) -> Decision:
    """Choose where the request goes now (`now`: monotonic seconds).

    `asked_for` is the client's spelling of the model, for error messages.
    """
    able = _able(features, twins, policy, options, now)
    if able:
        best = _best(able, features, policy)
        instance, model = best.instance, best.model
        if instance is None or model is None:
            return ChooseEndpoint(best.twin)
        delay = best.delay if policy.priced else None
        return ChooseInstance(
            best.twin, instance, model, _reason(best, instance), delay, best.ready
        )
    if options.strategy is Strategy.OPTIMISTIC and options.fallback is Fallback.ALL:
        anyone = msgspec.structs.replace(features, models=())
        able = _able(anyone, twins, policy, options, now)
        if able:
            return ChooseFallback(_best(able, features, policy).twin)
    return refusal(features, twins.snapshot, asked_for, now, options.embedding_endpoints)


def explain(
    features: Features, twins: Twins, policy: Policy, options: RoutingOptions, now: float
) -> list[Considered]:
    """Return all endpoints with their place in the order or their exclusion, the best first."""
    able = _able(features, twins, policy, options, now, everyone=True)
    for each in able:  # bounds have done their work: now the whole price
        if each.instance is not None:
            terms = expected_delay(each.instance, features, twins, now)
            each.delay = terms.total + options.spillover * twins.tier(each.view)
    count = len(able)
    rows = [
        Considered(
            each.view.name,
            policy.key(each, features, count),
            expected_delay(each.instance, features, twins, now)
            if each.instance is not None
            else None,
            options.spillover * twins.tier(each.view),
            len(each.instance.waiting) if each.instance is not None else 0,
        )
        for each in sorted(able, key=lambda each: policy.key(each, features, count))
    ]
    chosen = {row.endpoint for row in rows}
    for view in twins.snapshot.endpoints:
        if view.name not in chosen:
            twin = twins.by_name[view.name]
            reserved = options.embedding_endpoints
            instance = next(
                (twin.names[each] for each in features.models if each in twin.names), None
            )
            why = exclusion(features, view, reserved) or reluctance(twin, instance, now)
            rows.append(Considered(view.name, exclusion=why or Exclusion.NO_MODEL))
    return rows


def _able(
    features: Features,
    twins: Twins,
    policy: Policy,
    options: RoutingOptions,
    now: float,
    *,
    everyone: bool = False,
) -> list[Candidate]:
    return candidates(
        features,
        twins,
        now,
        priced=policy.priced,
        spillover=options.spillover,
        reserved=options.embedding_endpoints,
        everyone=everyone,
    )


def _best(able: Sequence[Candidate], features: Features, policy: Policy) -> Candidate:
    if len(able) == 1:
        return able[0]
    count = len(able)
    if policy.priced:
        lowest = min([each.delay for each in able])
        able = [each for each in able if each.delay == lowest]
        if len(able) == 1:
            return able[0]
    return min(able, key=lambda each: policy.key(each, features, count))


def _reason(best: Candidate, instance: ModelInstance) -> Reason:
    if not best.twin.tells_residency:
        return _MODEL_FOUND
    if best.ready:
        return _MODEL_LOADED
    loading = best.twin.loading
    if loading is not None and loading.instance is instance:
        return Reason.MODEL_LOADING
    return Reason.COLD_LOAD


def refusal(
    features: Features,
    snapshot: Snapshot,
    asked_for: str,
    now: float,
    reserved: frozenset[str] = frozenset(),
) -> Refuse:
    """Return why a request without candidates cannot be sent, and what to do about it."""
    if features.pinned is not None and features.pinned not in snapshot.by_name:
        allowed = features.allowed
        names = ", ".join(
            view.name for view in snapshot.endpoints if allowed is None or view.name in allowed
        )
        return Refuse(
            Failure(
                Kind.NOT_FOUND, f"no endpoint is named '{features.pinned}'; there are: {names}"
            ),
            Reason.NO_ENDPOINT,
        )
    in_scope = [view for view in snapshot.endpoints if _in_scope(features, view)]
    if features.allowed is not None and not in_scope:
        names = ", ".join(sorted(features.allowed))
        return Refuse(
            Failure(Kind.FORBIDDEN, f"this key is for the endpoints {names} only"),
            Reason.NO_ENDPOINT,
        )
    if features.profiles is not None and features.pinned is None and not in_scope:
        kinds = " or ".join(sorted(features.profiles))
        return Refuse(
            Failure(
                Kind.NOT_FOUND,
                f"no endpoint of type {kinds} is configured; add one to the configuration's "
                "discovery.static.endpoints",
            ),
            Reason.NO_ENDPOINT,
        )
    having = [
        view
        for view in in_scope
        if not features.models or any(model in view.models for model in features.models)
    ]
    # A model is "not found" only when somebody could tell: with every endpoint down or not yet
    # asked, the honest answer is that it cannot be served now.
    if features.models and not having:
        missing = _missing(features, snapshot, in_scope, asked_for)
        if missing is not None:
            return Refuse(Failure(Kind.MODEL_NOT_FOUND, missing), Reason.MODEL_NOT_FOUND)
    kept = [view for view in having if (view.name in reserved) is not features.embedding]
    if features.models and reserved and having and len(kept) == len(having):
        what = "anything but embeddings" if features.embedding is False else "embeddings"
        return Refuse(
            Failure(
                Kind.MODEL_NOT_FOUND,
                f"model '{asked_for}' is only on endpoints that are not for {what} "
                "(routing.embedding_endpoints)",
            ),
            Reason.NO_ENDPOINT,
        )
    concerned = having or in_scope
    retry_after = _retry_after(concerned, now)
    states = _states(concerned)
    if features.models:
        return Refuse(
            Failure(
                Kind.MODEL_UNAVAILABLE,
                f"model '{asked_for}' is on no endpoint that can serve it now ({states}); "
                "try again shortly",
                retry_after=retry_after,
            ),
            Reason.MODEL_UNAVAILABLE,
        )
    return Refuse(
        Failure(
            Kind.NO_ENDPOINT,
            f"no endpoint can serve this now ({states}); try again shortly",
            retry_after=retry_after,
        ),
        Reason.NO_ENDPOINT,
    )


def _missing(
    features: Features, snapshot: Snapshot, in_scope: Sequence[EndpointView], asked_for: str
) -> str | None:
    """Return why no endpoint in scope has the model, and a remedy; None while none has reported."""
    allowed = features.allowed
    kinds = sorted(
        {
            view.profile.name
            for view in snapshot.endpoints
            if view.profile is not None
            and (allowed is None or view.name in allowed)
            and any(model in view.models for model in features.models)
        }
    )
    if kinds and features.pinned is None:
        paths = " or ".join(f"/olla/{kind}/v1/chat/completions" for kind in kinds[:3])
        return (
            f"model '{asked_for}' is only on endpoints of type {', '.join(kinds)}, which this path "
            f"does not reach; ask for it at {paths}"
        )
    if not any(view.models_at is not None for view in in_scope):
        return None
    near = _near(asked_for, in_scope) if features.suggests else []
    text = f"model '{asked_for}' not found on any endpoint"
    if near:
        text += f"; did you mean {' or '.join(near)}?"
    if any(view.profile is not None and view.profile.name == "ollama" for view in in_scope):
        text += f"; pull it on a node first: ollama pull {asked_for}"
    return text


def _near(asked_for: str, views: Sequence[EndpointView]) -> list[str]:
    """Return up to two model names that are similar to the requested one."""
    names: dict[str, None] = {}
    for view in views:
        for model in view.models.values():
            if len(names) >= _COMPARED_MAX:
                break
            names[display(model.name)] = None
    return get_close_matches(asked_for[:_NAME_COMPARED_MAX], names, 2, 0.7)


def _in_scope(features: Features, view: EndpointView) -> bool:
    if features.pinned is not None and view.name != features.pinned:
        return False
    if features.allowed is not None and view.name not in features.allowed:
        return False
    if view.profile is None:
        return True
    if features.profiles is None:
        return speaks(features, view)
    return view.profile.name in features.profiles


def _states(views: Sequence[EndpointView]) -> str:
    if not views:
        return "none of that type is configured"
    shown = ", ".join(f"{view.name}: {view.health.value}" for view in views[:8])
    return shown if len(views) <= 8 else f"{shown}, and {len(views) - 8} more"


def _retry_after(views: Sequence[EndpointView], now: float) -> float:
    waits = [
        at - now
        for view in views
        for at in (view.retry_at if view.health is Health.RATE_LIMITED else view.next_check_at,)
        if at is not None
    ]
    soonest = min(waits, default=_RETRY_AFTER_MIN)
    return min(max(soonest, _RETRY_AFTER_MIN), _RETRY_AFTER_MAX)

"""One endpoint with a reason, or a refusal with one."""

import msgspec

from olla.failures import Kind
from olla.fleet.breaker import BreakerState
from olla.fleet.health import Health
from olla.fleet.snapshot import EndpointView
from olla.routing.candidates import Exclusion
from olla.routing.decision import (
    ChooseEndpoint,
    ChooseFallback,
    Decision,
    Fallback,
    Reason,
    Refuse,
    RoutingOptions,
    Strategy,
    decide,
    explain,
)
from olla.routing.features import Features
from olla.routing.policies import POLICIES
from tests.views import MODEL, features, send, twins, view

POLICY = POLICIES["least-connections"]


def decision(
    *views: EndpointView,
    about: Features | None = None,
    options: RoutingOptions | None = None,
    now: float = 0.0,
) -> Decision:
    """Decide about a request for `m`."""
    return decide(about or features(), twins(*views), POLICY, options or RoutingOptions(), "m", now)


def refused(*views: EndpointView, about: Features | None = None, now: float = 0.0) -> Refuse:
    """A decision that must be a refusal."""
    outcome = decision(*views, about=about, now=now)
    assert isinstance(outcome, Refuse)
    return outcome


def test_the_reason_tells_what_is_known_of_the_model() -> None:
    """In memory, on disk, or nobody can say."""
    reasons = []
    for each in (view("a", resident=["m"]), view("a"), view("a", profile="vllm")):
        outcome = decision(each, about=features(dialect="openai"))
        reasons.append(outcome.reason)
    assert reasons == [Reason.MODEL_LOADED, Reason.COLD_LOAD, Reason.MODEL_FOUND]
    kept = twins(view("a", models=["m", "n"]))
    twin = kept.by_name["a"]
    twin.start_load(twin.names[MODEL], (), 0.0)
    for model, reason in (("m", Reason.MODEL_LOADING), ("n", Reason.COLD_LOAD)):
        outcome = decide(features(model), kept, POLICY, RoutingOptions(), model, 1.0)
        assert outcome.reason is reason


def test_a_request_without_a_model_needs_only_an_endpoint() -> None:
    """Any that is routable."""
    outcome = decision(view("a"), about=Features(models=(), dialect="ollama"))
    assert isinstance(outcome, ChooseEndpoint)
    assert outcome.reason is Reason.NO_MODEL


def test_a_model_that_is_nowhere_is_not_found() -> None:
    """The message says how to get it."""
    outcome = refused(view("a", models=["other"]))
    assert outcome.failure.kind is Kind.MODEL_NOT_FOUND
    assert "ollama pull m" in outcome.failure.message


def test_a_model_on_endpoints_that_are_down_is_unavailable() -> None:
    """The message says where it is, and in which state that is."""
    outcome = refused(view("a", health=Health.OFFLINE), view("b", 1, models=[]))
    assert outcome.failure.kind is Kind.MODEL_UNAVAILABLE
    assert "a: offline" in outcome.failure.message
    assert "b" not in outcome.failure.message.split("(")[1]


def test_nothing_is_not_found_while_nobody_could_tell() -> None:
    """With no list read yet, a model may well be there."""
    outcome = refused(view("a", models=[], health=Health.UNKNOWN, models_at=None))
    assert outcome.failure.kind is Kind.MODEL_UNAVAILABLE


def test_retry_after_is_when_the_first_endpoint_is_asked_again() -> None:
    """Between one second and thirty."""
    for wait, expected in ((0.2, 1.0), (7.0, 7.0), (500.0, 30.0)):
        down = msgspec.structs.replace(view("a", health=Health.OFFLINE), next_check_at=100.0 + wait)
        assert refused(down, now=100.0).failure.retry_after == expected


def test_a_rate_limited_endpoint_is_asked_again_when_it_wants() -> None:
    """Its own time counts, not the probe's."""
    limited = msgspec.structs.replace(
        view("a", health=Health.RATE_LIMITED), retry_at=12.0, next_check_at=2.0
    )
    assert refused(limited).failure.retry_after == 12.0


def test_optimistic_routing_falls_back_only_when_told_to() -> None:
    """To any endpoint of the right kind, and it says so."""
    other = view("a", models=["other"])
    everywhere = RoutingOptions(Strategy.OPTIMISTIC, Fallback.ALL)
    outcome = decision(other, options=everywhere)
    assert isinstance(outcome, ChooseFallback)
    assert outcome.reason is Reason.FALLBACK
    for fallback in (Fallback.NONE, Fallback.COMPATIBLE_ONLY):
        options = RoutingOptions(Strategy.OPTIMISTIC, fallback)
        assert isinstance(decision(other, options=options), Refuse)
    for strategy in (Strategy.STRICT, Strategy.DISCOVERY):
        assert isinstance(decision(other, options=RoutingOptions(strategy, Fallback.ALL)), Refuse)


def test_a_pin_to_nobody_names_who_there_is() -> None:
    """A misspelled endpoint is the caller's mistake."""
    outcome = refused(view("a"), view("b", 1), about=features(pinned="c"))
    assert outcome.failure.kind is Kind.NOT_FOUND
    assert "a, b" in outcome.failure.message


def test_no_endpoint_of_the_kind_is_told() -> None:
    """The operator has to configure one."""
    outcome = refused(view("a"), about=features(profiles=frozenset({"vllm"})))
    assert outcome.failure.kind is Kind.NOT_FOUND
    assert "no endpoint of type vllm" in outcome.failure.message
    assert outcome.failure.retry_after is None


def test_an_explanation_names_every_endpoint() -> None:
    """The candidates best first, then the others with what keeps them out."""
    kept = twins(
        view("a"),
        view("b", 1),
        view("c", 2, health=Health.OFFLINE),
        view("d", 3, models=[]),
    )
    send(kept, "a")
    rows = explain(features(), kept, POLICY, RoutingOptions(), 0.0)
    assert [row.endpoint for row in rows] == ["b", "a", "c", "d"]
    assert [row.exclusion for row in rows] == [
        None,
        None,
        Exclusion.UNROUTABLE,
        Exclusion.NO_MODEL,
    ]


def test_an_explanation_has_the_whole_price_and_who_waits() -> None:
    """Best first by the seconds that are compared, a lower priority's charge included."""
    kept = twins(
        view("low", priority=1, resident=["m"]),
        view("high", 1, priority=100, resident=["m"]),
        view("open", 2, priority=100, resident=["m"], breaker=BreakerState.OPEN),
    )
    kept.by_name["high"].names[MODEL].waiting = [Waits()]
    options = RoutingOptions(spillover=0.5)
    rows = explain(features(), kept, POLICIES["shortest-expected-delay"], options, 0.0)
    assert [row.endpoint for row in rows] == ["low", "high", "open"]
    assert [row.waiting for row in rows] == [0, 1, 0]
    assert [row.spillover for row in rows] == [0.5, 0.0, 0.0]
    assert rows[2].exclusion is Exclusion.BREAKER_OPEN
    assert rows[0].key is not None
    assert rows[0].delay is not None
    assert rows[0].key[0] == rows[0].delay.total + 0.5


class Waits:
    """A request that waits, of a second's work."""

    order = work = 1.0


def test_a_refusal_speaks_of_what_the_request_may_use() -> None:
    """A model on another endpoint is not there for a key, or a pin, that leads elsewhere."""
    views = (view("a"), view("b", 1, models=["x"]))
    for about in (
        features(pinned="b"),
        msgspec.structs.replace(features(), allowed=frozenset({"b"})),
    ):
        assert refused(*views, about=about).failure.kind is Kind.MODEL_NOT_FOUND


def test_a_key_for_endpoints_that_are_not_there_is_told_so() -> None:
    """With the names it is for: no wait will help."""
    about = msgspec.structs.replace(features(), allowed=frozenset({"x", "y"}))
    outcome = refused(view("a"), about=about)
    assert outcome.failure.kind is Kind.FORBIDDEN
    assert "x, y" in outcome.failure.message


def test_a_refusal_names_eight_endpoints_at_most() -> None:
    """And how many more there are."""
    down = [view(f"e{at}", at, health=Health.OFFLINE) for at in range(11)]
    message = refused(*down).failure.message
    assert "e7: offline, and 3 more" in message
    assert "e8" not in message

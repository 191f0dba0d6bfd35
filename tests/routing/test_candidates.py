"""Who could serve a request, and why others are not."""

import msgspec
import pytest

from olla.fleet.breaker import BreakerState
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.health import Health
from olla.fleet.instance import InFlightRequest
from olla.fleet.snapshot import EndpointView
from olla.fleet.twins import Twins
from olla.routing.candidates import Exclusion, candidates, exclusion, reluctance
from tests.views import features, send, twins, view

OPEN, HALF = BreakerState.OPEN, BreakerState.HALF_OPEN


def names(*views: EndpointView, **about: object) -> list[str]:
    """The candidates' names."""
    found = candidates(features(**about), twins(*views), 0.0)  # type: ignore[arg-type]
    return [each.view.name for each in found]


def test_only_endpoints_that_have_the_model_are_candidates() -> None:
    """In configuration order."""
    assert names(view("a"), view("b", 1, models=["other"]), view("c", 2)) == ["a", "c"]


@pytest.mark.parametrize("health", [each for each in Health if not each.routable])
def test_no_unroutable_endpoint_is_a_candidate(health: Health) -> None:
    """Whatever the reason for which it is not."""
    assert names(view("a", health=health), view("b", 1)) == ["b"]
    assert exclusion(features(), view("a", health=health)) is Exclusion.UNROUTABLE


def test_a_busy_endpoint_is_a_candidate() -> None:
    """Slow to tell what it has in memory is no death."""
    assert names(view("a", health=Health.BUSY)) == ["a"]


def test_each_endpoint_is_tried_once() -> None:
    """What failed this request is left out."""
    assert names(view("a"), view("b", 1), tried=("a",)) == ["b"]


def test_an_open_breaker_is_left_out_while_another_can_serve() -> None:
    """And counts when there is no other chance."""
    assert names(view("a", breaker=OPEN), view("b", 1)) == ["b"]
    assert names(view("a", breaker=OPEN), view("b", 1, breaker=OPEN)) == ["a", "b"]


def test_a_half_open_breaker_lets_one_request_through() -> None:
    """The trial; the next has to wait for its outcome, and old requests do not count."""
    (half,) = twins(view("a", breaker=HALF)).by_name.values()
    assert reluctance(half, None, 0.0) is None
    half.on_trial = True
    assert reluctance(half, None, 0.0) is Exclusion.BREAKER_OPEN


def test_who_comes_back_gets_a_few_at_a_time_unless_nobody_else_is_there() -> None:
    """Up to its bound it is a candidate like any other; beyond it only when it is the only one."""
    back = twins(view("a", ramp=2), view("b", 1))
    assert [each.view.name for each in candidates(features(), back, 0.0)] == ["a", "b"]
    back.by_name["a"].in_flight = 2
    assert reluctance(back.by_name["a"], None, 0.0) is Exclusion.SLOW_START
    assert [each.view.name for each in candidates(features(), back, 0.0)] == ["b"]
    alone = twins(view("a", ramp=2))
    alone.by_name["a"].in_flight = 2
    assert [each.view.name for each in candidates(features(), alone, 0.0)] == ["a"]


def test_a_model_that_an_endpoint_refuses_is_left_alone_for_a_while() -> None:
    """After a few in a row, for longer each time; at once where the endpoint names a time; and
    an answer ends it."""
    kept = twins(view("a", resident=["m"]), view("b", 1))
    twin = kept.by_name["a"]
    instance = twin.names[features("m").models[0]]

    def names_at(now: float) -> list[str]:
        return [each.view.name for each in candidates(features("m"), kept, now)]

    for _ in range(2):
        twin.refused(instance, 0.0, None)
    assert names_at(0.0) == ["a", "b"]
    twin.refused(instance, 0.0, None)
    assert (names_at(0.9), names_at(1.0)) == (["b"], ["a", "b"])
    twin.refused(instance, 10.0, None)
    assert (names_at(11.9), names_at(12.1)) == (["b"], ["a", "b"])
    twin.began(InFlightRequest(instance, 20.0, 1.0), 20.0)
    assert twin.clear
    twin.refused(instance, 30.0, 7.0)
    assert (names_at(36.0), names_at(37.5)) == (["b"], ["a", "b"])


def test_a_stuck_model_goes_elsewhere_and_others_on_the_endpoint_do_not() -> None:
    """What is stuck is a model on an endpoint; it is tried when it is on no other."""
    kept = twins(view("a", models=["m", "n"]), view("b", 1, models=["m"]))
    twin = kept.by_name["a"]
    twin.set_stuck(twin.names[features("m").models[0]], stuck=True)
    assert [each.view.name for each in candidates(features("m"), kept, 0.0)] == ["b"]
    assert [each.view.name for each in candidates(features("n"), kept, 0.0)] == ["a"]
    pinned = features("m", pinned="a")
    assert [each.view.name for each in candidates(pinned, kept, 0.0)] == ["a"]
    twin.set_stuck(twin.names[features("m").models[0]], stuck=False)
    assert [each.view.name for each in candidates(features("m"), kept, 0.0)] == ["a", "b"]


def test_the_kind_of_server_must_fit() -> None:
    """By type under a type's prefix, by dialect where any will do."""
    fitting = frozenset({"vllm"})
    both = (view("a"), view("b", 1, profile="vllm"))
    assert names(*both, profiles=fitting) == ["b"]
    assert names(*both, dialect="openai") == ["a", "b"]
    assert names(*both, dialect="ollama") == ["a"]


def test_a_pinned_request_goes_nowhere_else() -> None:
    """Even if the others could serve it."""
    assert names(view("a"), view("b", 1), pinned="b") == ["b"]


def test_an_alias_offers_each_endpoint_once_with_the_first_model_it_has() -> None:
    """Best name first."""
    both = view("a", models=["x", "y"])
    found = candidates(features("y", "x"), twins(both, view("b", 1, models=["x"])), 0.0)
    assert [(each.view.name, each.model) for each in found] == [
        ("a", features("y").models[0]),
        ("b", features("x").models[0]),
    ]


def test_residency_is_known_for_ollama_only() -> None:
    """Slots are as told, else found out from one on; others are taken to have several."""
    kept = twins(
        view("a", resident=["m"]), view("b", 1, num_parallel=4), view("c", 2, profile="vllm")
    )
    found = candidates(features(dialect="openai"), kept, 0.0)
    assert [(each.instance.slots.limit, each.resident) for each in found if each.instance] == [
        (1, True),
        (4, False),
        (8, None),
    ]


def test_an_endpoint_of_unknown_kind_is_no_candidate() -> None:
    """What it speaks is not known yet."""
    unknown = EndpointView(EndpointSpec("a", "a", 1), 0, health=Health.HEALTHY)
    assert exclusion(features(), unknown) is Exclusion.UNROUTABLE


def test_endpoints_kept_for_embeddings_get_nothing_else() -> None:
    """And embeddings go nowhere else."""
    kept = twins(view("a"), view("b", 1))
    reserved = frozenset({"b"})
    for embedding, name in ((False, "a"), (True, "b")):
        about = msgspec.structs.replace(features(), embedding=embedding)
        found = candidates(about, kept, 0.0, reserved=reserved)
        assert [each.view.name for each in found] == [name]


def test_a_lower_priority_is_charged_the_spillover() -> None:
    """A tier at a time, whatever the numbers are."""
    warm = ["m:latest"]
    kept = twins(
        view("a", priority=10, resident=warm),
        view("b", 1, priority=100, resident=warm),
        view("c", 2, priority=11, resident=warm),
    )
    found = candidates(features(), kept, 0.0, priced=True, spillover=2.0)
    base = found[1].delay
    assert [round(each.delay - base, 6) for each in found] == [4.0, 0.0, 2.0]


def test_a_key_s_endpoints_are_the_only_candidates() -> None:
    """However good the others are."""
    about = msgspec.structs.replace(features(), allowed=frozenset({"b"}))
    found = candidates(about, twins(view("a"), view("b", 1)), 0.0)
    assert [each.view.name for each in found] == ["b"]
    assert exclusion(about, view("a")) is Exclusion.NOT_ALLOWED


def test_endpoints_kept_for_embeddings_take_what_needs_no_model() -> None:
    """A version is asked of anybody."""
    about = msgspec.structs.replace(features(), models=())
    assert exclusion(about, view("a"), frozenset({"a"})) is None


def many(count: int = 40, *, spread: bool = True) -> Twins:
    """Endpoints that have the model in memory; each reads prompts more slowly than the one
    before where `spread`."""
    kept = twins(*(view(f"e{at}", at, resident=["m"], num_parallel=1) for at in range(count)))
    for at, instance in enumerate(kept.instances(features().models[0])):
        instance.rates.prefill = 0.001 * (1 + at * spread)
    return kept


def priced(kept: Twins, *, everyone: bool = False, **about: object) -> list[str]:
    """The names of candidates for a prompt of a thousand tokens."""
    asked = msgspec.structs.replace(features(), prompt_tokens=1000.0, **about)
    found = candidates(asked, kept, 0.0, priced=True, everyone=everyone)
    return [each.view.name for each in found]


def test_of_many_endpoints_only_those_are_priced_that_can_be_the_best() -> None:
    """Reading the prompt takes the others longer than the best one in all; an explanation shows
    everybody."""
    assert priced(many()) == ["e0"]
    assert len(priced(many(), everyone=True)) == 40
    kept = many()
    send(kept, "e0", count=3)  # three seconds of work: e1 to e3 may be as good
    assert priced(kept) == ["e0", "e1"]


def test_of_many_equal_endpoints_some_are_enough() -> None:
    """A request has to go to one of the best, not to know all of them."""
    assert 16 <= len(priced(many(spread=False))) < 20


def test_a_slow_endpoint_with_the_prompt_in_its_cache_is_priced_too() -> None:
    """What it saves may outweigh its rate, whatever the others with a part of it cost."""
    found = priced(many(), cached={"e30": 1000.0, "e35": 900.0})
    assert {"e30", "e35"} <= {*found}
    assert len(found) < 10


def test_an_endpoint_that_is_a_last_chance_hides_none_that_can_serve() -> None:
    """The fastest one, whose breaker is open, is no measure for the others."""
    kept = many()
    twin = kept.by_name["e0"]
    twin.set_view(msgspec.structs.replace(twin.view, breaker=OPEN))
    assert priced(kept) == ["e1"]

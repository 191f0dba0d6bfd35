"""The rules every policy keeps: a newcomer is tested by being in POLICIES."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.fleet.breaker import BreakerState
from olla.fleet.health import Health
from olla.fleet.snapshot import EndpointView, ResidentModel
from olla.routing.decision import Refuse, RoutingOptions, decide
from olla.routing.policies import DEFAULT, POLICIES
from olla.routing.policy import Policy
from tests.views import MODEL, features, send, twins, view

OPTIONS = RoutingOptions()
BY_NAME = pytest.mark.parametrize("policy", POLICIES.values(), ids=list(POLICIES))

ENDPOINT = st.tuples(
    st.sampled_from([Health.HEALTHY, Health.HEALTHY, Health.BUSY, Health.OFFLINE]),
    st.sampled_from([BreakerState.CLOSED, BreakerState.CLOSED, BreakerState.OPEN]),
    st.booleans(),
    st.integers(0, 3),
    st.integers(0, 4),
)
Busy = dict[str, int]
FLEETS = st.lists(ENDPOINT, min_size=1, max_size=6)


def build(
    rows: list[tuple[Health, BreakerState, bool, int, int]],
) -> tuple[list[EndpointView], Busy]:
    """Endpoints e0, e1, … with their load."""
    load: Busy = {}
    views = []
    for number, (health, breaker, resident, priority, in_flight) in enumerate(rows):
        name = f"e{number}"
        views.append(
            view(
                name,
                number,
                health=health,
                breaker=breaker,
                resident=["m"] if resident else [],
                priority=priority,
            )
        )
        load[name] = in_flight
    return views, load


def choice(policy: Policy, views: list[EndpointView], load: Busy, **about: object) -> str | None:
    """The name of the endpoint that is chosen."""
    kept = twins(*views)
    for name, count in load.items():
        send(kept, name, MODEL, count)
    outcome = decide(
        features(**about),  # type: ignore[arg-type]
        kept,
        policy,
        OPTIONS,
        "m",
        0.0,
    )
    return None if isinstance(outcome, Refuse) else outcome.view.name


def test_the_default_is_one_of_them() -> None:
    """And each is registered under its own name."""
    assert DEFAULT in POLICIES
    assert all(policy.name == name for name, policy in POLICIES.items())


@BY_NAME
@given(rows=FLEETS, ticket=st.integers(0, 100))
def test_only_routable_endpoints_are_chosen_and_one_is_if_there_is_any(
    policy: Policy, rows: list[tuple[Health, BreakerState, bool, int, int]], ticket: int
) -> None:
    """An open breaker is chosen only when all are open."""
    views, load = build(rows)
    chosen = choice(policy, views, load, ticket=ticket)
    able = [each for each in views if each.routable]
    closed = [each.name for each in able if each.breaker is not BreakerState.OPEN]
    if not able:
        assert chosen is None
    else:
        assert chosen in (closed or [each.name for each in able])


@BY_NAME
@given(rows=FLEETS, ticket=st.integers(0, 100))
def test_the_same_input_gives_the_same_choice_and_retries_end(
    policy: Policy, rows: list[tuple[Health, BreakerState, bool, int, int]], ticket: int
) -> None:
    """Each endpoint is chosen at most once while the earlier ones are `tried`."""
    views, load = build(rows)
    tried: tuple[str, ...] = ()
    while (name := choice(policy, views, load, ticket=ticket, tried=tried)) is not None:
        assert name == choice(policy, views, load, ticket=ticket, tried=tried)
        assert name not in tried
        tried = (*tried, name)
    assert len(tried) == len([each for each in views if each.routable])


@BY_NAME
@given(rows=FLEETS, ticket=st.integers(0, 100))
def test_names_do_not_matter(
    policy: Policy, rows: list[tuple[Health, BreakerState, bool, int, int]], ticket: int
) -> None:
    """Relabelled endpoints are chosen at the same place."""
    views, load = build(rows)
    other: Busy = {}
    renamed = []
    for each in views:
        new = f"z{9 - each.position}"
        renamed.append(
            msgspec.structs.replace(each, spec=msgspec.structs.replace(each.spec, name=new))
        )
        other[new] = load[each.name]
    before = choice(policy, views, load, ticket=ticket)
    after = choice(policy, renamed, other, ticket=ticket)
    position = {each.name: each.position for each in (*views, *renamed)}
    assert (before is None) == (after is None)
    if before is not None and after is not None:
        assert position[before] == position[after]


@BY_NAME
@given(rows=FLEETS, ticket=st.integers(0, 100), more=st.integers(0, 5))
def test_more_load_never_attracts(
    policy: Policy,
    rows: list[tuple[Health, BreakerState, bool, int, int]],
    ticket: int,
    more: int,
) -> None:
    """An endpoint that is not chosen is not chosen for having more to do. (Where the model is not
    in memory, a request that causes its load may well attract those that can share it.)"""
    views, load = build(rows)
    before = choice(policy, views, load, ticket=ticket)
    loser = views[more % len(views)].name
    load[loser] += 1
    if loser != before and (views[more % len(views)].resident or not policy.priced):
        assert choice(policy, views, load, ticket=ticket) != loser


@BY_NAME
@given(rows=FLEETS, ticket=st.integers(0, 100), which=st.integers(0, 5))
def test_having_the_model_in_memory_never_repels(
    policy: Policy,
    rows: list[tuple[Health, BreakerState, bool, int, int]],
    ticket: int,
    which: int,
) -> None:
    """The chosen endpoint stays chosen when it has the model loaded as well."""
    views, load = build(rows)
    before = choice(policy, views, load, ticket=ticket)
    at = which % len(views)
    if views[at].name == before:
        views[at] = msgspec.structs.replace(views[at], resident={MODEL: ResidentModel("m")})
        assert choice(policy, views, load, ticket=ticket) == before


@BY_NAME
def test_equals_take_turns(policy: Policy) -> None:
    """Over as many requests as there are endpoints, each gets one."""
    views = [view(f"e{number}", number) for number in range(4)]
    chosen = [choice(policy, views, {}, ticket=ticket) for ticket in range(4)]
    assert sorted(str(each) for each in chosen) == ["e0", "e1", "e2", "e3"]

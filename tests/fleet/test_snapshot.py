"""The frozen picture of the fleet, and its index."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.fleet.breaker import BreakerState
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.health import Health
from olla.fleet.model_names import canonical
from olla.fleet.snapshot import (
    EMPTY,
    EndpointView,
    Model,
    ResidentModel,
    Snapshot,
    resident_by_name,
)

NAMES = ("a", "b", "c", "d")
MODELS = ("llama3:latest", "mistral:7b", "nomic-embed-text:latest")


def view(name: str, *models: str, digest: str | None = None, **known: object) -> EndpointView:
    """An endpoint with models."""
    return EndpointView(
        spec=EndpointSpec(name, "127.0.0.1", 1, authority="127.0.0.1:1"),
        position=NAMES.index(name) if name in NAMES else len(NAMES),
        models={canonical(each): Model(each, digest=digest) for each in models},
        **known,  # type: ignore[arg-type]
    )


@st.composite
def views(draw: st.DrawFn, name: str) -> EndpointView:
    """Anything that may be known of an endpoint."""
    return view(
        name,
        *draw(st.lists(st.sampled_from(MODELS), unique=True)),
        digest=draw(st.sampled_from([None, "1", "2"])),
        health=draw(st.sampled_from(Health)),
        breaker=draw(st.sampled_from(BreakerState)),
        checked_at=draw(st.none() | st.floats(0, 1)),
    )


fleets = st.lists(st.sampled_from(NAMES), unique=True).flatmap(
    lambda names: st.tuples(*(views(name) for name in names))
)
changes = st.lists(st.sampled_from(NAMES).flatmap(views), max_size=8)


@given(fleets, changes)
def test_replacing_equals_building_anew(
    fleet: tuple[EndpointView, ...], changed: list[EndpointView]
) -> None:
    """However many views are replaced one by one, the index is that of the whole built afresh."""
    snapshot = Snapshot.of(fleet)
    expected = list(fleet)
    for one in changed:
        snapshot = snapshot.replaced(one)
        expected = [one if each.name == one.name else each for each in expected]
        assert snapshot == Snapshot.of(expected)


@given(fleets, changes)
def test_an_old_snapshot_stays_as_it_was(
    fleet: tuple[EndpointView, ...], changed: list[EndpointView]
) -> None:
    """Who holds one goes on with a consistent picture."""
    snapshot = Snapshot.of(fleet)
    for one in changed:
        snapshot.replaced(one)
    assert snapshot == Snapshot.of(fleet)


@given(fleets)
def test_the_index_says_what_the_views_say(fleet: tuple[EndpointView, ...]) -> None:
    """By name and by model, in the order of the configuration, and nothing else."""
    snapshot = Snapshot.of(fleet)
    assert snapshot.endpoints == fleet
    assert list(snapshot.by_name.values()) == list(fleet)
    for model in {name for each in fleet for name in each.models} | {"none"}:
        having = tuple(each for each in fleet if model in each.models)
        assert snapshot.having(model) == having


def test_a_model_that_goes_leaves_no_ghost() -> None:
    """The last endpoint's model vanishes from the index with it."""
    snapshot = Snapshot.of([view("a", "llama3"), view("b", "llama3", "mistral:7b")])
    snapshot = snapshot.replaced(view("b", "llama3"))
    assert canonical("mistral:7b") not in snapshot.holders
    assert [each.name for each in snapshot.having(canonical("llama3"))] == ["a", "b"]


def test_an_endpoint_that_is_not_there_replaces_nothing() -> None:
    """Nobody joins a fleet by being replaced."""
    snapshot = Snapshot.of([view("a", "llama3")])
    assert snapshot.replaced(view("b", "llama3")) == snapshot
    assert EMPTY.replaced(view("b")) == EMPTY


def test_a_view_is_frozen() -> None:
    """Nobody can change what another one reads."""
    with pytest.raises(AttributeError):
        view("a").health = Health.OFFLINE  # type: ignore[misc]


@pytest.mark.parametrize("health", Health)
def test_a_view_is_routable_as_its_health_is(health: Health) -> None:
    """Whatever traffic says: that is for routing to weigh."""
    one = msgspec.structs.replace(view("a"), health=health, breaker=BreakerState.OPEN)
    assert one.routable is health.routable


def test_an_instance_is_found_under_every_name_of_its_digest() -> None:
    """Ollama lists it under the name that loaded it first."""
    models = view("a", "llama3", "my-llama:v2", digest="1").models
    models = {**models, canonical("other"): Model("other", digest="2")}
    resident_model = ResidentModel("my-llama:v2", digest="1")
    assert resident_by_name([resident_model], models) == {
        canonical("llama3"): resident_model,
        canonical("my-llama:v2"): resident_model,
    }


def test_an_instance_of_its_own_name_comes_first() -> None:
    """Two instances of one digest each keep their name."""
    models = view("a", "one", "two", digest="1").models
    one, two = ResidentModel("one", digest="1"), ResidentModel("two", digest="1", context_length=9)
    found = resident_by_name([one, two], models)
    assert found[canonical("one")] is one
    assert found[canonical("two")] is two


def test_an_instance_without_a_digest_has_its_name_alone() -> None:
    """Models without digests are not all the same model."""
    models = view("a", "one", "two").models
    assert set(resident_by_name([ResidentModel("one")], models)) == {canonical("one")}

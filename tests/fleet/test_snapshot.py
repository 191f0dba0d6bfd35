"""The fleet at one moment: frozen, indexed, replaced as a whole."""

from hypothesis import given
from hypothesis import strategies as st

from olla.fleet.names import canonical
from olla.fleet.snapshot import EMPTY, Instance, Model, Snapshot, resident_by_name
from tests.views import view

MODELS = st.lists(st.sampled_from(["m", "n", "o"]), unique=True)


def test_models_are_indexed_with_all_who_have_them() -> None:
    """In configuration order, down or not."""
    snapshot = Snapshot.of([view("a"), view("b", 1, models=["m", "n"])])
    assert [each.name for each in snapshot.by_model[canonical("m")]] == ["a", "b"]
    assert [each.name for each in snapshot.by_model[canonical("n")]] == ["b"]
    assert EMPTY.by_model == {}


@given(before=st.lists(MODELS, min_size=1, max_size=4), after=MODELS, which=st.integers(0, 3))
def test_replacing_one_endpoint_is_building_anew(
    before: list[list[str]], after: list[str], which: int
) -> None:
    """Whatever models it gains or loses; the old snapshot stays as it was."""
    views = [view(f"e{at}", at, models=models) for at, models in enumerate(before)]
    snapshot = Snapshot.of(views)
    at = which % len(views)
    changed = view(f"e{at}", at, models=after)
    replaced = snapshot.replaced(changed)
    views[at] = changed
    assert replaced == Snapshot.of(views)
    assert len(snapshot.by_name[f"e{at}"].models) == len(before[at])


def test_an_instance_is_found_under_every_name_of_its_digest() -> None:
    """Ollama lists it under the name that loaded it first."""
    models = {
        canonical("one"): Model("one", digest="d1"),
        canonical("two"): Model("two", digest="d1"),
        canonical("else"): Model("else", digest="d2"),
    }
    found = resident_by_name([Instance("one:latest", digest="d1")], models)
    assert set(found) == {canonical("one"), canonical("two")}

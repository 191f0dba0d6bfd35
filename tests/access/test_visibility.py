"""What a caller may see of the fleet."""

import pytest

from olla.access.caller import of_key
from olla.access.keys import Key
from olla.access.visibility import EVERYTHING, Visibility
from olla.dialects.dialect import Right
from tests.views import view

LIST, ADMIN, GENERATE = Right.LIST, Right.ADMIN, Right.GENERATE


def of(*rights: Right, models: tuple[str, ...] = (), endpoints: tuple[str, ...] = ()) -> Visibility:
    """What a key sees."""
    key = Key("1", b"d", "oa-", "n", rights=frozenset(rights), models=models, endpoints=endpoints)
    return Visibility.of(of_key(key))


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("llama3", True),
        ("LLAMA3:70b", True),
        ("registry.ollama.ai/library/llama3.2:latest", True),
        ("phi:latest", True),
        ("phi", True),
        ("phi:3b", False),
        ("mistral", False),
        ("other/llama3", False),
        ("", False),
    ],
)
def test_a_key_for_some_models_sees_those(name: str, seen: bool) -> None:
    """By globs and names, under every spelling."""
    visible = of(LIST, models=("llama3*", "phi"))
    assert visible.sees_model(name) is seen
    assert not visible.all_models
    assert not visible.everything


def test_a_key_for_some_endpoints_sees_those() -> None:
    """In the order of the configuration."""
    visible = of(LIST, endpoints=("b", "c"))
    assert [visible.sees_endpoint(name) for name in ("a", "b", "")] == [False, True, False]
    found = visible.views([view("a"), view("b"), view("c")])
    assert [each.name for each in found] == ["b", "c"]
    assert visible.all_models
    assert not visible.everything


def test_without_list_no_model_is_named_and_without_admin_no_address() -> None:
    """Whatever else a key may do."""
    assert not of(GENERATE).sees_model("m")
    assert not of(GENERATE).everything
    assert of(LIST).sees_model("m")
    assert of(LIST).everything
    assert [of(*rights).addresses for rights in ((LIST,), (LIST, ADMIN))] == [False, True]
    assert EVERYTHING.everything
    assert EVERYTHING.addresses

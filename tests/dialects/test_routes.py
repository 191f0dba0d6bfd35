"""The tables of paths."""

import pytest

from olla.dialects.dialect import Operation, Right
from olla.dialects.routes import (
    BodyUse,
    native_routes,
    right_of,
    routes_of,
    unknown_right,
    v1_routes,
)
from olla.fleet.profiles import PROFILES

RANK = {Right.LIST: 0, Right.EMBED: 1, Right.GENERATE: 1, Right.MANAGE: 2}
TABLES = [native_routes(), v1_routes("/v1", anthropic=True)]
TABLES += [routes_of(name, anthropic=True) for name in PROFILES]


@pytest.mark.parametrize("table", TABLES)
def test_a_table_is_consistent(table) -> None:
    """Paths are clean, a parameter stands last, and only what has a body is looked into."""
    for path, route in table.items():
        assert path.startswith("/")
        assert "//" not in path
        assert path == "/" or not path.endswith("/")
        assert "*" not in path.removesuffix("/*")
        assert ("GET" in route.methods) <= (route.body is BodyUse.NONE)
        assert ("GET" in route.methods) <= ("HEAD" in route.methods)
        assert route.operation is not Operation.OTHER


@pytest.mark.parametrize("table", TABLES)
def test_a_path_that_is_not_in_a_table_needs_no_less_than_where_it_is(table) -> None:
    """Under another server's prefix a path does not get cheaper."""
    for path, route in table.items():
        for method in route.methods:
            unknown = unknown_right(method, path.replace("*", "x"), None, queried=False)
            assert RANK[unknown] >= RANK[right_of(route.operation)]


@pytest.mark.parametrize("operation", Operation)
def test_every_operation_needs_a_right(operation: Operation) -> None:
    """What changes a node manages; what occupies a slot infers."""
    right = right_of(operation)
    assert not operation.occupies_slot or right in (Right.GENERATE, Right.EMBED)
    changes = {Operation.PULL, Operation.PUSH, Operation.CREATE, Operation.COPY}
    changes |= {Operation.DELETE, Operation.BLOB}
    assert (right is Right.MANAGE) == (operation in changes)


@pytest.mark.parametrize("row", PROFILES.values(), ids=lambda row: row.name)
def test_where_a_server_lists_its_models_is_a_list(row) -> None:
    """The path that probes ask is known to be a list for clients too."""
    table = native_routes() if row.name == "ollama" else routes_of(row.name, anthropic=False)
    assert table[row.list_path].operation is Operation.LIST

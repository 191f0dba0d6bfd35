"""Which wire formats there are."""

from olla.dialects.registry import DIALECTS
from olla.dialects.routes import native_routes, routes_of, v1_routes
from olla.fleet.profiles import PROFILES


def test_every_dialect_that_is_named_is_there() -> None:
    """What the kinds of server speak, and what paths are in, can be spoken here."""
    spoken = {name for row in PROFILES.values() for name in row.dialects}
    tables = [native_routes(), v1_routes("/v1", anthropic=True)]
    tables += [routes_of(name, anthropic=True) for name in PROFILES]
    spoken |= {route.dialect for table in tables for route in table.values()}
    assert spoken <= set(DIALECTS)
    assert set(DIALECTS) == spoken | {"olla"}

"""Paths as the program wires them."""

import pytest

from olla.dialects.paths import Paths, ScopeSpec
from olla.fleet.profiles import PROFILES


def make_paths(*, root_enabled: bool = True) -> Paths:
    scopes = [ScopeSpec(row.name, row.prefixes, row.dialects) for row in PROFILES.values()]
    return Paths(scopes, root_enabled=root_enabled)


@pytest.fixture(scope="session")
def paths() -> Paths:
    return make_paths()


@pytest.fixture(scope="session")
def paths_without_root() -> Paths:
    return make_paths(root_enabled=False)

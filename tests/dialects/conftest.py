"""Paths as the program wires them."""

import pytest

from olla.dialects.paths import Paths, ScopeSpec
from olla.fleet.profiles import PROFILES


@pytest.fixture(scope="session")
def paths_without_root() -> Paths:
    """A router that serves nothing outside `/olla/`."""
    scopes = [ScopeSpec(row.name, row.prefixes, row.dialects) for row in PROFILES.values()]
    return Paths(scopes, root_enabled=False)

"""Tests of the known keys, as read from the settings classes."""

import pytest

from olla.settings.problems import Key
from olla.settings.schema_walk import is_duration, keys_below, list_keys, paths_named, scalar_keys


@pytest.mark.parametrize(
    ("key", "name", "has_names"),
    [
        ((), "server", True),
        (("server", "request_limits"), "max_body_size", True),
        (("discovery", "static", "endpoints", 3), "url", True),
        (("discovery", "static", "endpoints", 3, "auth"), "token_file", True),
        (("server", "port"), "", False),
        (("model_aliases",), "", False),
        (("nowhere", "at", "all"), "", False),
    ],
)
def test_the_names_below_a_key_are_known(key: Key, name: str, has_names: bool) -> None:
    """Empty if any name is allowed, below a value, and below unknown keys."""
    assert bool(keys_below(key)) is has_names
    assert not has_names or name in keys_below(key)


def test_scalar_keys_exclude_lists_and_mappings() -> None:
    """Scalar keys are those that a variable can set."""
    keys = set(scalar_keys())
    assert ("server", "request_limits", "max_body_size") in keys
    assert ("model_aliases",) not in keys
    assert not [key for key in keys if "endpoints" in key]


def test_all_paths_with_a_name_are_found() -> None:
    """Lists and user-defined names are marked."""
    assert "access.tiers.NAME.concurrent" in paths_named("concurrent")
    assert paths_named("endpoints") == ["discovery.static.endpoints", "access.keys[].endpoints"]
    assert "discovery.static.endpoints[].check_timeout" in paths_named("check_timeout")
    assert paths_named("nowhere") == []


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (("server", "idle_timeout"), True),
        (("discovery", "static", "endpoints", 0, "check_interval"), True),
        (("server", "port"), False),
        (("server",), False),
        (("nowhere",), False),
    ],
)
def test_durations_are_distinguished_from_other_numbers(key: Key, expected: bool) -> None:
    """So that messages about them can include the unit."""
    assert is_duration(key) is expected


def test_lists_of_strings_are_distinguished() -> None:
    """From scalar keys, and from lists of sections."""
    keys = set(list_keys())
    assert ("server", "cors", "allowed_origins") in keys
    assert ("access", "trusted_proxies") in keys
    assert ("access", "keys") not in keys
    assert not keys & set(scalar_keys())

"""Which keys there are, read off the settings' classes."""

import pytest

from olla.settings.problems import Key
from olla.settings.schema_walk import is_duration, keys_below, list_keys, places_of, scalar_keys


@pytest.mark.parametrize(
    ("key", "some", "many"),
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
def test_the_names_below_a_key_are_known(key: Key, some: str, many: bool) -> None:
    """None where any name may stand, below a value, or where there is no such key."""
    assert bool(keys_below(key)) is many
    assert not many or some in keys_below(key)


def test_keys_with_one_value_are_those_of_no_list_and_no_mapping() -> None:
    """What a variable can hold."""
    keys = set(scalar_keys())
    assert ("server", "request_limits", "max_body_size") in keys
    assert ("model_aliases",) not in keys
    assert not [key for key in keys if "endpoints" in key]


def test_a_name_is_found_wherever_it_stands() -> None:
    """Places in lists, and below names of one's own, are marked."""
    assert "access.tiers.NAME.concurrent" in places_of("concurrent")
    assert places_of("endpoints") == ["discovery.static.endpoints", "access.keys[].endpoints"]
    assert "discovery.static.endpoints[].check_timeout" in places_of("check_timeout")
    assert places_of("nowhere") == []


@pytest.mark.parametrize(
    ("key", "whether"),
    [
        (("server", "idle_timeout"), True),
        (("discovery", "static", "endpoints", 0, "check_interval"), True),
        (("server", "port"), False),
        (("server",), False),
        (("nowhere",), False),
    ],
)
def test_times_are_told_from_other_numbers(key: Key, whether: bool) -> None:
    """So that messages about them can name the unit."""
    assert is_duration(key) is whether


def test_lists_of_texts_are_told_apart() -> None:
    """From keys with one value, and from lists of sections."""
    keys = set(list_keys())
    assert ("server", "cors", "allowed_origins") in keys
    assert ("access", "trusted_proxies") in keys
    assert ("access", "keys") not in keys
    assert not keys & set(scalar_keys())

"""Kinds of server, one row each."""

import pytest

from olla.fleet.profiles import ALIASES, AUTO, PROFILES, Profile, profile_named


@pytest.mark.parametrize("row", PROFILES.values(), ids=list(PROFILES))
def test_a_row_is_complete(row: Profile) -> None:
    """Paths begin with a slash, there is a prefix and a dialect."""
    assert row.prefixes
    assert row.dialects <= {"ollama", "openai", "anthropic"}
    paths = [row.alive_path, row.list_path, row.resident_path, row.version_path]
    assert all(path.startswith("/") for path in paths if path is not None)
    assert profile_named(row.name.upper()) is row


def test_prefixes_and_aliases_are_unambiguous() -> None:
    """No prefix leads to two kinds; every alias leads to one."""
    prefixes = [prefix for row in PROFILES.values() for prefix in row.prefixes]
    assert len(prefixes) == len(set(prefixes))
    assert set(ALIASES.values()) <= set(PROFILES)
    assert not set(ALIASES) & set(PROFILES)


def test_auto_and_nonsense_are_no_profiles() -> None:
    """The first is found out, the second is a mistake."""
    assert profile_named(AUTO) is None
    assert profile_named("nonsense") is None

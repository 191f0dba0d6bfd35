"""The table of kinds of server."""

import pytest

from olla.fleet.profiles import ALIASES, AUTO, PROFILES, ListFormat, Profile, profile_named

PATHS = ("alive_path", "list_path", "resident_path", "version_path")


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda each: each.name)
def test_a_row_is_complete(profile: Profile) -> None:
    """It speaks something, is reached under its own name, and its paths are paths."""
    assert profile.dialects
    assert profile.dialects <= {"ollama", "openai", "anthropic"}
    assert profile.name in profile.prefixes
    for name in PATHS:
        path = getattr(profile, name)
        assert path is None or path.startswith("/")
    assert profile_named(profile.name) is profile


def test_no_prefix_leads_to_two_kinds() -> None:
    """`/olla/{prefix}/` is unambiguous."""
    prefixes = [prefix for profile in PROFILES.values() for prefix in profile.prefixes]
    assert len(prefixes) == len(set(prefixes))


def test_aliases_lead_to_rows_and_hide_none() -> None:
    """Another spelling is never a name of its own."""
    assert set(ALIASES.values()) <= set(PROFILES)
    assert not set(ALIASES) & set(PROFILES)


def test_auto_is_no_kind() -> None:
    """It has to be found out first."""
    assert profile_named(AUTO) is None


@pytest.mark.parametrize("spelling", ["llama.cpp", "LLAMA-CPP", " llamacpp "])
def test_spelling_is_forgiven(spelling: str) -> None:
    """Case, blanks and the usual variants."""
    assert profile_named(spelling) is PROFILES["llamacpp"]


def test_an_unknown_name_is_no_kind() -> None:
    """None, and no guess."""
    assert profile_named("ollamma") is None


def test_only_ollama_tells_what_is_in_memory() -> None:
    """And it alone lists in Ollama's shape."""
    assert [row.name for row in PROFILES.values() if row.tells_residency] == ["ollama"]
    assert [row.name for row in PROFILES.values() if row.list_format is ListFormat.OLLAMA] == [
        "ollama"
    ]

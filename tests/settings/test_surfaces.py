"""Where the gateways' surfaces are, and whether."""

import pytest

from olla.settings import SettingsError, parse


def test_all_are_there_by_default() -> None:
    """At the places that are documented."""
    surfaces = parse("", {}).settings.surfaces
    assert surfaces.root.enabled
    assert (surfaces.management.enabled, surfaces.management.prefix) == (True, "/olla/management")
    assert (surfaces.chat.enabled, surfaces.chat.prefix) == (True, "")
    assert surfaces.chat.default_model == "smollm:latest"


@pytest.mark.parametrize("prefix", ["/api", "/a/b-c", "/a/", ""])
def test_a_prefix_is_a_path(prefix: str) -> None:
    """A slash at its end does not count."""
    text = f"surfaces: {{management: {{prefix: '{prefix}'}}, chat: {{prefix: /chat-service}}}}"
    assert parse(text, {}).settings.surfaces.management.prefix == prefix.rstrip("/")


@pytest.mark.parametrize("prefix", ["api", "/a b", "/a?b", "/../x%2f", "/internal", "/metrics/x"])
def test_other_texts_are_none(prefix: str) -> None:
    """Nor may it hide what is olla's own."""
    with pytest.raises(SettingsError):
        parse(f"surfaces: {{chat: {{prefix: '{prefix}'}}}}", {})

"""Tests of the `surfaces` section."""

import pytest

from olla.settings import SettingsError, parse


def test_all_surfaces_are_enabled_by_default() -> None:
    """At the documented prefixes."""
    surfaces = parse("", {}).settings.surfaces
    assert surfaces.root.enabled
    assert (surfaces.management.enabled, surfaces.management.prefix) == (True, "/olla/management")
    assert (surfaces.chat.enabled, surfaces.chat.prefix) == (True, "")
    assert surfaces.chat.default_model == "smollm:latest"


@pytest.mark.parametrize("prefix", ["/api", "/a/b-c", "/a/", ""])
def test_a_prefix_is_a_path(prefix: str) -> None:
    """A trailing slash is stripped."""
    text = f"surfaces: {{management: {{prefix: '{prefix}'}}, chat: {{prefix: /chat-service}}}}"
    assert parse(text, {}).settings.surfaces.management.prefix == prefix.rstrip("/")


@pytest.mark.parametrize(
    "prefix",
    [
        *("api", "/a b", "/a?b", "/../x%2f", "/internal", "/metrics/x", "/admin", "/olla"),
        *("/v1", "/v1/chat", "/olla/ollama", "/olla/ollama/api/", "/olla/openai/v1", "/olla/proxy"),
        *("/olla/anthropic", "/olla/llama.cpp/x", "/olla/vllm", "/olla/openapi.json"),
    ],
)
@pytest.mark.parametrize("surface", ["chat", "management"])
def test_an_invalid_or_reserved_prefix_is_rejected(prefix: str, surface: str) -> None:
    """A prefix must not hide olla's paths, or forwarded ones."""
    with pytest.raises(SettingsError) as caught:
        parse(f"surfaces: {{{surface}: {{prefix: '{prefix}'}}}}", {})
    assert [each.key for each in caught.value.problems] == [f"surfaces.{surface}.prefix"]


@pytest.mark.parametrize(
    ("surface", "more", "message"),
    [
        (
            "management: {prefix: /api}",
            "",
            "/api/chat and /api/generate belong to the management API here, not to Ollama's API; "
            "Ollama's is at /olla/ollama/api",
        ),
        (
            "chat: {prefix: /api}",
            "",
            "/api/chat belongs to the chat service here, not to Ollama's API; "
            "Ollama's is at /olla/ollama/api",
        ),
        ("chat: {prefix: /api}", "root: {enabled: false}", None),
        ("chat: {prefix: /api, enabled: false}", "", None),
        ("management: {prefix: /api/v9}", "", None),
        ("chat: {prefix: ''}", "", None),
    ],
)
def test_shadowed_paths_of_ollama_are_reported(
    surface: str, more: str, message: str | None
) -> None:
    """Clients of Ollama's API at the root would get responses of another API."""
    text = "surfaces:\n  " + "\n  ".join((surface, more))
    found = [(each.key, each.line, each.message) for each in parse(text, {}).notices]
    key = f"surfaces.{surface.partition(':')[0]}.prefix"
    assert found == ([] if message is None else [(key, 2, message)])

"""Tests of the types and defaults of the settings."""

import pytest

from olla.settings import Settings, parse


def test_scalars_take_the_type_of_their_key() -> None:
    """Quotes do not matter, and digits stay text where a string is expected."""
    loaded = parse(
        """
server: {port: "8080"}
surfaces: {root: {enabled: "no"}}
logging: {level: WARN, format: Text}
proxy: {load_balancer: Round_Robin}
discovery:
  static:
    endpoints:
      - {url: "http://a", name: 007, num_parallel: "4", headers: {X-Team: 12, X-On: on}}
model_aliases: {4: [7]}
""",
        {},
    ).settings
    (endpoint,) = loaded.discovery.static.endpoints
    assert loaded.server.port == 8080
    assert loaded.surfaces.root.enabled is False
    assert (loaded.logging.level, loaded.logging.format) == ("warning", "text")
    assert loaded.proxy.load_balancer == "round-robin"
    assert (endpoint.name, endpoint.num_parallel) == ("007", 4)
    assert endpoint.headers == {"X-Team": "12", "X-On": "on"}
    assert loaded.model_aliases == {"4": ("7",)}


def test_an_idle_timeout_of_zero_is_the_default() -> None:
    """Files of the Go router use 0s for the default, never to close connections immediately."""
    assert parse("server: {idle_timeout: 0s}", {}).settings == Settings()


def test_the_default_endpoint_is_a_local_ollama() -> None:
    """Its address is Ollama's default."""
    (endpoint,) = parse("", {}).settings.discovery.static.endpoints
    assert (endpoint.name, endpoint.url) == ("local-ollama", "http://localhost:11434")


def test_settings_are_immutable() -> None:
    """Settings change only by loading them again."""
    settings = parse("", {}).settings
    with pytest.raises(ValueError, match="frozen"):
        settings.server.port = 1  # type: ignore[misc]

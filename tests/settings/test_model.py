"""The types and defaults of the settings."""

import pytest

from olla.settings import Settings, parse


def test_scalars_take_the_type_of_their_key() -> None:
    """Quotes do not matter, and digits stay text where text is wanted."""
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
    """Files of the Go router say 0s for its default; closing at once is meant by nobody."""
    assert parse("server: {idle_timeout: 0s}", {}).settings == Settings()


def test_without_a_file_there_is_one_local_ollama() -> None:
    """The built-in default is Ollama's own address."""
    (endpoint,) = parse("", {}).settings.discovery.static.endpoints
    assert (endpoint.name, endpoint.url) == ("local-ollama", "http://localhost:11434")


def test_settings_cannot_be_changed() -> None:
    """What was loaded holds until it is loaded again."""
    settings = parse("", {}).settings
    with pytest.raises(ValueError, match="frozen"):
        settings.server.port = 1  # type: ignore[misc]

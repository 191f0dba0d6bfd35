"""Tests of environment variables that override keys."""

from collections.abc import Callable

import pytest

from olla.settings import Problem, Settings, parse
from olla.settings.schema_walk import scalar_keys

Problems = Callable[..., list[Problem]]


@pytest.mark.parametrize(
    ("name", "value", "key", "expected"),
    [
        ("OLLA_SERVER_PORT", "8080", "server.port", 8080),
        ("OLLA_SERVER_HOST", "0.0.0.0", "server.host", "0.0.0.0"),
        ("OLLA_SERVER_SHUTDOWN_TIMEOUT", "1m", "server.shutdown_timeout", 60.0),
        (
            "OLLA_SERVER_REQUEST_LIMITS_MAX_BODY_SIZE",
            "1MB",
            "server.request_limits.max_body_size",
            1 << 20,
        ),
        ("OLLA_SERVER_MAX_BODY_SIZE", "2MB", "server.request_limits.max_body_size", 2 << 20),
        ("OLLA_SERVER_MAX_HEADER_SIZE", "64KB", "server.request_limits.max_header_size", 65536),
        ("OLLA_PROXY_LOAD_BALANCER", "round-robin", "proxy.load_balancer", "round-robin"),
        ("OLLA_LOGGING_LEVEL", "debug", "logging.level", "debug"),
        ("OLLA_SURFACES_ROOT_ENABLED", "false", "surfaces.root.enabled", False),
        ("OLLA_ACCESS_REQUIRE_KEY", "true", "access.require_key", True),
        (
            "OLLA_SERVER_GLOBAL_RATE_LIMIT",
            "5",
            "server.rate_limits.global_requests_per_minute",
            5,
        ),
        (
            "OLLA_MODEL_REGISTRY_ROUTING_STRATEGY_OPTIONS_FALLBACK_BEHAVIOR",
            "all",
            "model_registry.routing_strategy.options.fallback_behavior",
            "all",
        ),
    ],
)
def test_a_variable_overrides_its_key(name: str, value: str, key: str, expected: object) -> None:
    """Sections and names are joined by underscores, even if they contain underscores."""
    found: object = parse("server: {port: 1, host: x}", {name: value}).settings
    for part in key.split("."):
        found = getattr(found, part)
    assert found == expected


def test_a_list_is_written_with_commas() -> None:
    """As in the Go router's documentation; blanks are stripped."""
    variables = {
        "OLLA_SERVER_CORS_ENABLED": "true",
        "OLLA_SERVER_CORS_ALLOWED_ORIGINS": "https://a.example, https://b.example",
        "OLLA_SERVER_CORS_MAX_AGE": "600",
        "OLLA_SERVER_ALLOWED_HOSTS": "llm.example",
    }
    server = parse("server: {cors: {allowed_origins: ['https://c.example']}}", variables)
    assert server.notices == []
    cors = server.settings.server.cors
    assert cors.allowed_origins == ("https://a.example", "https://b.example")
    assert cors.max_age == 600
    assert server.settings.server.allowed_hosts == ("llm.example",)


def test_an_invalid_list_is_a_problem_of_the_variable(problems: Problems) -> None:
    """It is not a problem of the file, which does not set the key."""
    (found,) = problems("", {"OLLA_SERVER_CORS_ALLOWED_ORIGINS": "https://a.example,b"})
    assert found.key == "OLLA_SERVER_CORS_ALLOWED_ORIGINS"


def test_every_key_with_one_value_has_one_variable() -> None:
    """No two keys share a variable."""
    names = ["_".join(key) for key in scalar_keys()]
    assert len(set(names)) == len(names)
    assert "server_port" in names
    assert not [name for name in names if "endpoints" in name or "aliases" in name]


@pytest.mark.parametrize("name", ["OLLA_SERVER_PORT", "OLLA_CONFIG_FILE", "OLLA_HOME", "PATH"])
def test_empty_and_reserved_variables_change_nothing(name: str) -> None:
    """A compose file sets an empty variable when the user sets none."""
    value = "" if name == "OLLA_SERVER_PORT" else "/somewhere"
    loaded = parse("", {name: value})
    assert (loaded.settings, loaded.notices) == (Settings(), [])


def test_an_invalid_variable_is_reported_instead_of_the_line_it_overrides(
    problems: Problems,
) -> None:
    """Container platforms inject OLLA_SERVER_PORT=tcp://… for a service of that name."""
    found = problems("server: {port: 1}", {"OLLA_SERVER_PORT": "tcp://10.0.0.1:40114"})
    assert list(map(str, found)) == [
        "environment: OLLA_SERVER_PORT: 'tcp://10.0.0.1:40114' is not a whole number"
    ]


def test_a_variable_does_not_hide_an_invalid_section(problems: Problems) -> None:
    """The problem of the file is still reported."""
    (problem,) = problems("server: 5", {"OLLA_SERVER_PORT": "1"})
    assert (problem.line, problem.key) == (1, "server")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("OLLA_SERVER_PROT", "did you mean OLLA_SERVER_PORT?"),
        ("OLLA_PROXY_ENGINE", "olla has a single engine"),
        ("OLLA_PROXY_STICKY_SESSIONS_ENABLED", "nothing is pinned"),
        ("OLLA_SERVER_RATE_LIMITS_CLEANUP_INTERVAL", "are removed automatically"),
        ("OLLA_TRANSLATORS_ANTHROPIC_ENABLED", "Anthropic requests are forwarded"),
    ],
)
def test_a_variable_that_was_meant_for_olla_is_reported(name: str, message: str) -> None:
    """Near misses, and variables of the Go router that have no effect here."""
    (notice,) = parse("", {name: "1"}).notices
    assert str(notice).startswith(f"environment: {name}: ")
    assert message in notice.message


def test_unrelated_variables_are_ignored() -> None:
    """Other products use names with OLLA_ too."""
    assert parse("", {"OLLA_VERSION_TAG": "1", "OLLAMA_HOST": "x"}).notices == []


def test_an_invalid_variable_that_requires_keys_prevents_startup(
    problems: Problems,
) -> None:
    """A router that is meant to require keys must not run open."""
    (problem,) = problems("", {"OLLA_ACCESS_REQUIRE_KEY": "surely"})
    assert "neither true nor false" in problem.message

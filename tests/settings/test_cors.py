"""Tests of `server.cors` and `server.allowed_hosts`."""

from collections.abc import Callable

import pytest

from olla.settings import Problem, parse
from olla.settings.cors import Cors

Problems = Callable[..., list[Problem]]


def cors(text: str) -> Cors:
    """Parse the section."""
    return parse(f"server: {{cors: {text}}}", {}).settings.server.cors


def test_without_the_section_ollamas_origins_are_allowed() -> None:
    """The defaults are local pages and desktop apps, every header, and the methods of the APIs."""
    default = cors("{}")
    assert default.enabled
    assert default.allowed_origins[:2] == ("http://localhost:*", "https://localhost:*")
    assert "tauri://*" in default.allowed_origins
    assert default.allowed_headers == ("*",)
    assert "DELETE" in default.allowed_methods


def test_the_keys_are_those_of_the_go_router() -> None:
    """The Go router's defaults mean the same here."""
    found = cors(
        '{enabled: true, allowed_origins: ["*"], allowed_methods: [get, POST, OPTIONS], '
        'allowed_headers: ["*"], exposed_headers: [], allow_credentials: false, max_age: 300}'
    )
    assert found.allowed_origins == ("*",)
    assert found.allowed_methods == ("GET", "POST", "OPTIONS")
    assert found.max_age == 300


@pytest.mark.parametrize(
    "origin",
    [
        *("https://app.example", "HTTP://LOCALHOST:3000", "https://*.corp.example:*", "https://*"),
        *("http://[::1]:3000", "http://127.0.0.1:*", "capacitor://localhost", "app://*", "*"),
        "chrome-extension://abcdefgh",
    ],
)
def test_an_origin_is_a_scheme_a_host_and_a_port(origin: str) -> None:
    """In any case, optionally with a star."""
    assert cors(f'{{allowed_origins: ["{origin}"]}}').allowed_origins == (origin.lower(),)


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        ("https://app.example/", "is not an origin"),
        ("https://app.example/path", "is not an origin"),
        ("app.example", "is not an origin"),
        ("localhost:3000", "is not an origin"),
        ("https://", "is not an origin"),
        ("https://a b", "is not an origin"),
        ("https://user@app.example", "is not an origin"),
        ("https://app.example:port", "is not an origin"),
        ("", "is not an origin"),
        ("https://*.*.example", "more than one *"),
        ("null", "sandboxed"),
    ],
)
def test_an_invalid_origin_is_a_problem(origin: str, message: str, problems: Problems) -> None:
    """It would silently match nothing, or everything."""
    (found,) = problems(f'server: {{cors: {{allowed_origins: ["{origin}"]}}}}')
    assert message in found.message
    assert found.key == "server.cors.allowed_origins"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{allowed_origins: ["*"], allow_credentials: true}', "allow_credentials"),
        ("{allowed_origins: []}", "allowed_origins"),
        ('{allowed_methods: ["GET,POST"]}', "allowed_methods"),
        ('{allowed_headers: ["X A"]}', "allowed_headers"),
        ('{exposed_headers: ["X-A:"]}', "exposed_headers"),
        ("{max_age: 2d}", "max_age"),
    ],
)
def test_a_policy_that_browsers_reject_is_a_problem(
    text: str, key: str, problems: Problems
) -> None:
    """The error appears at load, not in the console of the browser."""
    (found,) = problems(f"server: {{cors: {text}}}")
    assert found.key == f"server.cors.{key}"


def test_a_disabled_policy_is_not_validated() -> None:
    """The Go router's shipped file has a star in a disabled policy."""
    assert not cors('{enabled: false, allowed_origins: ["*"], allow_credentials: true}').enabled


@pytest.mark.parametrize(
    ("host", "read"),
    [
        ("LLM.example.com", "llm.example.com"),
        ("llm.example.com.", "llm.example.com"),
        ("*.example.com", "*.example.com"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("203.0.113.9", "203.0.113.9"),
        ("box", "box"),
        ("*", "*"),
    ],
)
def test_an_allowed_host_is_a_name_an_address_or_a_wildcard(host: str, read: str) -> None:
    """Names are lower-cased, without brackets or a final dot."""
    found = parse(f'server: {{allowed_hosts: ["{host}"]}}', {}).settings.server
    assert found.allowed_hosts == (read,)


@pytest.mark.parametrize("host", ["https://a.example", "a.example:80", "a b", "", "a.*", "*."])
def test_an_invalid_host_name_is_a_problem(host: str, problems: Problems) -> None:
    """A scheme or a port would never match."""
    (found,) = problems(f'server: {{allowed_hosts: ["{host}"]}}')
    assert "is not a host name" in found.message

"""Tests of the settings in force as YAML."""

from collections.abc import Callable

import yaml

from olla.settings import effective_yaml, parse


def test_a_dump_can_be_loaded_again(endpoints: Callable[..., str]) -> None:
    """It means the same as the original file, defaults included."""
    text = endpoints("{url: 'http://a:1', check_interval: 1s}", "{url: 'http://b/x', name: b}")
    text += "proxy: {response_timeout: 90s}\nmodel_aliases: {chat: [a, b]}\n"
    shown = effective_yaml(parse(text, {}).settings)
    assert effective_yaml(parse(shown, {}).settings) == shown
    first = yaml.safe_load(shown)["discovery"]["static"]["endpoints"][0]
    assert (first["name"], first["check_timeout"]) == ("endpoint-1", "500ms")


def test_secrets_are_masked(endpoints: Callable[..., str]) -> None:
    """Credentials and header values are masked; names are shown."""
    shown = effective_yaml(
        parse(
            endpoints(
                "{url: 'http://a', headers: {X-Tenant: hush1}, auth: {type: bearer, token: hush2}}",
                "{url: 'http://b', auth: {type: api_key, key: hush3}}",
                "{url: 'http://c', auth: {type: basic, username: ann, password: hush4}}",
            ),
            {},
        ).settings
    )
    assert "hush" not in shown
    assert "X-Tenant: '***'" in shown
    assert "username: ann" in shown


def test_access_keys_and_passwords_are_masked() -> None:
    """Users paste the dump into bug reports."""
    text = """
access: {keys: [{name: ci, key: very-secret-key}]}
store: {url: "postgresql://olla:very-secret-word@db/olla"}
state: {url: "redis://:very-secret-word@cache:6379/0"}
"""
    shown = effective_yaml(parse(text, {}).settings)
    assert "very-secret" not in shown
    assert "postgresql://olla:***@db/olla" in shown
    assert "redis://:***@cache:6379/0" in shown

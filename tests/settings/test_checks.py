"""What is wrong between keys that are each right by themselves."""

from collections.abc import Callable

import pytest

from olla.settings import Problem, SettingsError, parse

Problems = Callable[..., list[Problem]]


@pytest.mark.parametrize(
    ("first", "second", "keys"),
    [
        ("{url: 'http://a:1', name: x}", "{url: 'http://b:1', name: x}", ["name"]),
        ("{url: 'http://a:1', name: x}", "{url: 'http://a:1', name: y}", ["url"]),
        ("{url: 'http://a', name: x}", "{url: 'http://A:80/', name: y}", ["url"]),
        ("{url: 'http://a:1'}", "{url: 'http://b:1', name: endpoint-1}", ["name"]),
        ("{url: 'http://a:1', name: endpoint-2}", "{url: 'http://b:1'}", ["name"]),
        ("{url: 'http://a:1', name: x, priority: -1}", "{url: 'http://b', name: x}", ["name"]),
    ],
)
def test_endpoints_that_cannot_be_told_apart_are_found(
    first: str, second: str, keys: list[str], problems: Problems, endpoints: Callable[..., str]
) -> None:
    """By name, and by address however it is spelled, even when the file has other problems."""
    found = problems(endpoints(first, second))
    twice = [each for each in found if "already" in each.message]
    assert [each.key for each in twice] == [f"discovery.static.endpoints[1].{key}" for key in keys]
    assert "endpoints[0] already" in twice[0].message


def test_endpoints_may_share_a_host(endpoints: Callable[..., str]) -> None:
    """Other ports or paths; those without a name are called by their place."""
    text = endpoints("{url: 'http://a:1'}", "{url: 'http://a:2', name: p}", "{url: 'http://a:1/p'}")
    found = parse(text, {}).settings.discovery.static.endpoints
    assert [each.name for each in found] == ["endpoint-1", "p", "endpoint-3"]


def test_aliases_that_are_one_name_for_ollama_are_found(problems: Problems) -> None:
    """Case and the tag latest do not tell names apart."""
    (problem,) = problems("model_aliases: {chat: [a], Chat: [b]}")
    assert problem.key == "model_aliases.Chat"
    assert "'chat' already" in problem.message


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_an_endpoint_that_is_the_router_itself_is_told(host: str) -> None:
    """Its requests would come back to it."""
    with pytest.raises(SettingsError) as caught:
        parse(
            "server: {port: 40999}\n"
            f"discovery: {{static: {{endpoints: [{{url: 'http://{host}:40999'}}]}}}}",
            {},
        )
    assert "router's own address" in str(caught.value.problems[0])


@pytest.mark.parametrize(
    ("text", "noted"),
    [
        ("server: {cors: {allowed_origins: ['*']}}", True),
        ("server: {cors: {enabled: true, allowed_origins: ['https://a.example', '*']}}", True),
        ("server: {cors: {enabled: false, allowed_origins: ['*']}}", False),
        ("server: {cors: {allowed_origins: ['https://*']}}", False),
        ("server: {cors: {allowed_origins: ['*']}}\naccess: {require_key: true}", False),
        ("server: {cors: {}}", False),
    ],
)
def test_a_router_that_is_open_to_every_page_is_noted(text: str, noted: bool) -> None:
    """Where neither origins nor keys keep them out."""
    notices = parse(text, {}).notices
    assert [each.key for each in notices] == ["server.cors.allowed_origins"] * noted

"""Tests of conflicts between keys that are valid on their own."""

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
def test_duplicate_endpoints_are_reported(
    first: str, second: str, keys: list[str], problems: Problems, endpoints: Callable[..., str]
) -> None:
    """By name and by address in any spelling, even when the file has other problems."""
    found = problems(endpoints(first, second))
    duplicates = [each for each in found if "already" in each.message]
    assert [each.key for each in duplicates] == [
        f"discovery.static.endpoints[1].{key}" for key in keys
    ]
    assert "endpoints[0] already" in duplicates[0].message


def test_endpoints_may_share_a_host(endpoints: Callable[..., str]) -> None:
    """Ports or paths may differ; endpoints without a name are named by position."""
    text = endpoints("{url: 'http://a:1'}", "{url: 'http://a:2', name: p}", "{url: 'http://a:1/p'}")
    found = parse(text, {}).settings.discovery.static.endpoints
    assert [each.name for each in found] == ["endpoint-1", "p", "endpoint-3"]


def test_aliases_that_are_equal_for_ollama_are_reported(problems: Problems) -> None:
    """Names that differ only in case or in the tag latest are equal."""
    (problem,) = problems("model_aliases: {chat: [a], Chat: [b]}")
    assert problem.key == "model_aliases.Chat"
    assert "'chat' already" in problem.message


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_an_endpoint_that_is_the_router_itself_is_reported(host: str) -> None:
    """Its requests would loop."""
    with pytest.raises(SettingsError) as caught:
        parse(
            "server: {port: 40999}\n"
            f"discovery: {{static: {{endpoints: [{{url: 'http://{host}:40999'}}]}}}}",
            {},
        )
    assert "the address of the router" in str(caught.value.problems[0])


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
def test_a_router_open_to_every_web_page_is_noticed(text: str, noted: bool) -> None:
    """Only when neither allowed origins nor keys keep pages out."""
    notices = parse(text, {}).notices
    assert [each.key for each in notices] == ["server.cors.allowed_origins"] * noted

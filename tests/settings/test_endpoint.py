"""Tests of the settings of an endpoint."""

from collections.abc import Callable

import pytest

from olla.settings import Problem, parse

Problems = Callable[..., list[Problem]]


@pytest.mark.parametrize(
    ("line", "key", "message"),
    [
        ("{name: a}", "", "this key is required"),
        ("5", "", "this must be a mapping with keys such as url"),
        ("{url: 'gpu-1:11434'}", ".url", "must look like http://host:11434"),
        ("{url: 'http://u:p@gpu-1'}", ".url", "use auth"),
        ("{url: 'http://a', nam: b}", ".nam", "did you mean name?"),
        ("{url: 'http://a', type: olama}", ".type", "did you mean ollama?"),
        ("{url: 'http://a', priority: -1}", ".priority", "it must be at least 0"),
        ("{url: 'http://a', num_parallel: 0}", ".num_parallel", "it must be at least 1"),
        (
            "{url: 'http://a', check_interval: 1s, check_timeout: 1s}",
            ".check_timeout",
            "must be shorter than check_interval",
        ),
        (
            "{url: 'http://a', check_timeout: 5s}",
            ".check_timeout",
            "must be shorter than check_interval",
        ),
        ("{url: 'http://a', check_interval: 1ms}", ".check_interval", "at least 0.1"),
        (
            "{url: 'http://a', health_check_url: 'http://b/x'}",
            ".health_check_url",
            "not below the endpoint's url",
        ),
        ("{url: 'http://a', model_url: 'a b'}", ".model_url", "must be a path"),
        ("{url: 'http://a', name: \"a\\nb\"}", ".name", "printable characters"),
        (
            "{url: 'http://a', headers: {Content-Length: 5}}",
            ".headers.Content-Length",
            "is set by olla",
        ),
        ("{url: 'http://a', headers: {host: b}}", ".headers.host", "is set by olla"),
        ("{url: 'http://a', headers: {'X A': b}}", ".headers.X A", "is not a valid header name"),
        ("{url: 'http://a', headers: {X-A: \"b\\r\\nX-B: c\"}}", ".headers.X-A", "on one line"),
        ("{url: 'http://a', headers: {X-A: b, x-a: c}}", ".headers", "the header x-a is set twice"),
        (
            "{url: 'http://a', headers: {Authorization: b}, auth: {type: bearer, token: t}}",
            ".headers",
            "authorization is set twice",
        ),
        ("{url: 'http://a', auth: {type: bearr, token: t}}", ".auth.type", "did you mean bearer?"),
        ("{url: 'http://a', auth: {token: t}}", ".auth.type", "this key is required"),
        (
            "{url: 'http://a', auth: {type: bearer}}",
            ".auth.token",
            "needs either token or token_file",
        ),
        (
            "{url: 'http://a', auth: {type: api_key, token: t}}",
            ".auth.key",
            "needs either key or key_file",
        ),
        (
            "{url: 'http://a', auth: {type: basic, username: u}}",
            ".auth.password",
            "needs either password",
        ),
        (
            "{url: 'http://a', auth: {type: basic, username: 'u:v', password: p}}",
            ".auth.username",
            "cannot contain a colon",
        ),
        (
            "{url: 'http://a', auth: {type: bearer, token: \"t\\r\\nX: y\"}}",
            ".auth.token",
            "one line of printable text",
        ),
        ("{url: 'http://a', auth: {type: bearer, token: 'tökn'}}", ".auth.token", "must be ASCII"),
        (
            "{url: 'http://a', auth: {type: api_key, key: k, header: 'a b'}}",
            ".auth.header",
            "is not a valid header name",
        ),
        (
            "{url: 'http://a', auth: {type: bearer, token_file: /nowhere/token}}",
            ".auth.token_file",
            "cannot be read: No such file",
        ),
        (
            "{url: 'http://a', auth: {type: bearer, token: '${SECRET}'}}",
            ".auth.token",
            "the variable SECRET is not set",
        ),
    ],
)
def test_a_problem_of_an_endpoint_names_its_key(
    line: str, key: str, message: str, problems: Problems, endpoints: Callable[..., str]
) -> None:
    """Every rule for endpoints points to the key that violates it."""
    found = problems(endpoints("{url: 'http://fine'}", line))
    (problem,) = [each for each in found if message in each.message]
    assert problem.key.startswith(f"discovery.static.endpoints[1]{key}")
    assert problem.line == 5


def test_secrets_are_not_in_the_repr(endpoints: Callable[..., str]) -> None:
    """Log lines and tracebacks with settings contain no secrets."""
    text = endpoints("{url: 'http://a', headers: {X: hush1}, auth: {type: bearer, token: hush2}}")
    assert "hush" not in repr(parse(text, {}).settings)

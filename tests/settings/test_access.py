"""Tests of keys, tiers and categories in the settings."""

import pytest

from olla.settings import SettingsError, parse


def test_the_documented_example_is_parsed() -> None:
    """It has keys from variables, tiers and categories."""
    text = """
access:
  require_key: true
  keys:
    - {name: ci, key: "${CI_KEY}", tier: premium, operations: [generate, embed, list], models: ["llama3*"]}
  tiers:
    anonymous: {requests_per_minute: 10}
    premium: {requests_per_minute: 300, tokens_per_minute: 100000, concurrent: 8}
  categories:
    generation: {requests_per_minute: 100, burst: 120}
  trusted_proxies: ["127.0.0.0/8"]
"""  # noqa: E501
    access = parse(text, {"CI_KEY": "secret-of-ci"}).settings.access
    assert access.require_key
    assert access.keys[0].key == "secret-of-ci"
    assert access.tiers["premium"].concurrent == 8
    assert access.categories["generation"].burst == 120
    assert "secret-of-ci" not in repr(access)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("access: {keys: [{name: a, key: short}]}", "at least 8 characters"),
        ("access: {keys: [{name: a, key: 'with a blank'}]}", "printable ASCII without spaces"),
        ("access: {keys: [{name: '', key: abcdefgh}]}", "1 to 100 printable"),
        ("access: {keys: [{name: a, key: ${NONE}}]}", "not YAML"),
        ("access: {keys: [{name: a, key: '${NONE}'}]}", "NONE is not set"),
        (
            "access: {keys: [{name: a, key: abcdefgh}, {name: a, key: hgfedcba}]}",
            "two keys are named 'a'",
        ),
        (
            "access: {keys: [{name: a, key: abcdefgh}, {name: b, key: abcdefgh}]}",
            "two entries have the same key",
        ),
        (
            "access: {keys: [{name: a, key: abcdefgh, operations: [mange]}]}",
            "did you mean manage",
        ),
        ("access: {keys: [{name: a, key: abcdefgh, tier: premum}]}", "did you mean premium"),
        ("access: {keys: [{name: a, key: abcdefgh, operations: []}]}", "allows no operation"),
        ("access: {keys: [{name: a, key: abcdefgh, models: ['']}]}", "must not be empty"),
        ("access: {keys: [{name: a, key: abcdefgh, models: ['${NONE:-}']}]}", "must not be empty"),
        ("access: {keys: [{name: a, key: abcdefgh, endpoints: [' ']}]}", "must not be empty"),
        (
            "access: {keys: [{name: a, key: abcdefgh, endpoints: [local-olama]}]}",
            "no endpoint is named 'local-olama'; did you mean local-ollama",
        ),
        ("access: {tiers: {a: {burst: 5}}}", "needs requests_per_minute"),
        ("access: {tiers: {a: {requests_per_minute: 0}}}", "too small"),
        ("access: {tiers: {a: {reqests_per_minute: 5}}}", "did you mean requests_per_minute"),
        ("access: {categories: {generating: {requests_per_minute: 5}}}", "generation, management"),
        ("access: {categories: {generation: {concurrent: 5}}}", "unknown key"),
        ("access: {trusted_proxies: [10.0.0.0/33]}", "is not a valid network"),
        ("access: {anonymous_operations: [list, fly]}", "'fly' is not a valid operation"),
        ("access: {anonymous_operations: [list, admin]}", "admin always needs a key"),
        ("access: {anonymous_operations: [Admin]}", "olla keys create --admin"),
        ("store: {url: 'mysql://x'}", "sqlite:///"),
        ("state: {url: 'memcached://x'}", "redis://"),
        ("state: {timeout: 0s}", "more than 0"),
        ("server: {rate_limits: {per_ip_requests_per_minute: -1}}", "too small"),
    ],
)
def test_invalid_access_settings_are_rejected(text: str, message: str) -> None:
    """Each error message says what to do."""
    with pytest.raises(SettingsError) as caught:
        parse(text, {})
    assert any(message in problem.message for problem in caught.value.problems), [
        problem.message for problem in caught.value.problems
    ]


@pytest.mark.parametrize(
    ("text", "operations"),
    [
        ("", ("generate", "embed", "list")),
        ("access: {}", ("generate", "embed", "list")),
        ("access: {anonymous_operations: [Manage, list]}", ("manage", "list")),
        ("access: {anonymous_operations: []}", ()),
    ],
)
def test_anonymous_operations_default_to_inference_and_lists(
    text: str, operations: tuple[str, ...]
) -> None:
    """An empty list allows nothing."""
    assert parse(text, {}).settings.access.anonymous_operations == operations


def test_no_problem_repeats_a_key() -> None:
    """Problems are logged, so they must not contain secrets."""
    text = "access: {keys: [{name: a, key: 'top secret thing'}, {name: b, key: t0pz}]}"
    with pytest.raises(SettingsError) as caught:
        parse(text, {})
    text = " ".join(str(problem) for problem in caught.value.problems)
    assert "top secret thing" not in text
    assert "t0pz" not in text

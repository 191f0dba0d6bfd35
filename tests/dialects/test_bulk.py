"""Bodies with very many keys are told apart from bodies with much in them."""

import json

import pytest

from olla.dialects.bulk import TOP_LEVEL_KEYS_MAX, too_many_keys

MESSAGES = [{"role": "user", "content": f"message {number}"} for number in range(20_000)]


@pytest.mark.parametrize("value", ["1", "{}", '{"a":1}', '"x"'])
def test_nothing_but_keys_is_too_many(value: str) -> None:
    """Whatever their values are."""
    body = "{" + ",".join(f'"key{number}":{value}' for number in range(30_000)) + "}"
    assert too_many_keys(body.encode())


def test_one_key_over_and_over_is_too_many() -> None:
    """Of a repeated key the last value counts; the others cost as much."""
    assert too_many_keys(b'{"messages":1' + b',"messages":1' * 30_000 + b"}")


@pytest.mark.parametrize("key", ["messages", "tools", "input"])
def test_much_within_one_key_is_not(key: str) -> None:
    """A long conversation, many tools."""
    body = json.dumps({"model": "m", key: MESSAGES}, separators=(",", ":")).encode()
    assert body.count(b'":') > TOP_LEVEL_KEYS_MAX
    assert not too_many_keys(body)


@pytest.mark.parametrize("body", [b"", b"[" * 300_000, b'{"a":' * 60_000, b'x":' * 200_000])
def test_what_is_no_object_is_somebody_elses_affair(body: bytes) -> None:
    """Whoever reads it will say what is wrong."""
    assert not too_many_keys(body)

"""Bodies as shapes, methods, and the limits that surfaces bring."""

from collections.abc import Generator
from typing import TypeVar

import pytest

from olla.dialects.json_scan import finished
from olla.failures import Failed, Kind
from olla.surfaces.json_requests import (
    KEYS_MAX,
    MESSAGES_MAX,
    parsed,
    parsed_with_fields,
    tier_limits,
)
from olla.surfaces.management.wire import ChatRequest, GenerateRequest, KeyRequest, Wire

T = TypeVar("T")


class Sent:
    """A request with a body."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def body(self, most: int) -> bytes:
        """The body."""
        assert len(self._body) <= most
        return self._body

    async def run(self, steps: Generator[None, None, T]) -> T:
        """What the steps come to."""
        return finished(steps)


async def refused(body: bytes, shape: type[Wire]) -> Failed:
    """The refusal of a body."""
    with pytest.raises(Failed) as raised:
        await parsed(Sent(body), shape, MESSAGES_MAX)  # type: ignore[arg-type]
    return raised.value


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"", Kind.BODY_NOT_JSON, "not a JSON object"),
        (b'{"a": ', Kind.BODY_NOT_JSON, "not a JSON object"),
        (b"[" * 100, Kind.BODY_NOT_JSON, "not a JSON object"),
        (b'"text"', Kind.BODY_NOT_JSON, "not a JSON object: it is another value"),
        (b'{"a": ' + b"[" * 4_000 + b"]" * 4_000 + b"}", Kind.BAD_REQUEST, "nested too deeply"),
        (b'{"a": [' + b"[]," * 6_000 + b"0]}", Kind.BAD_REQUEST, "more than 5,000 arrays"),
        (b'{"prompt": "x"}', Kind.MODEL_MISSING, "'model' is required"),
        (b'{"model": 3, "prompt": "x"}', Kind.MODEL_NOT_STRING, "'model'"),
        (b'{"model": "a"}', Kind.BAD_REQUEST, "'prompt' is required"),
        (b'{"model": "a", "prompt": "x", "seed": "1"}', Kind.BAD_REQUEST, "'seed'"),
        (b'{"model": "a", "prompt": "x", "stop": [1]}', Kind.BAD_REQUEST, "'stop"),
        (b'{"model": "a", "prompt": "x", "top_p": NaN}', Kind.BODY_NOT_JSON, "invalid"),
        (b'{"model": "a", "prompt": "x", "top_p": 1e999}', Kind.BAD_REQUEST, "'top_p'"),
        (b'{"model": "a", "prompt": 1, "top_p": 2}', Kind.BAD_REQUEST, "also look at prompt"),
    ],
)
async def test_a_body_that_is_not_of_the_shape_is_told_what_is_wrong(
    body: bytes, kind: Kind, words: str
) -> None:
    """The first field that is wrong, and that there are others."""
    failure = (await refused(body, GenerateRequest)).failure
    assert failure.kind is kind
    assert words in failure.message


async def test_only_the_first_of_many_wrong_messages_is_told() -> None:
    """As many as a body can hold cost no more than one."""
    body = b'{"model": "a", "messages": [%b]}' % b",".join([b"1"] * 150_000)
    assert "'messages.0'" in (await refused(body, ChatRequest)).failure.message


@pytest.mark.parametrize("text", ["x" * 9_000, "\\ud83d" * 2_000, "\\n" * 500_000, "\\ud83d"])
async def test_a_text_is_passed_on_as_it_was_written(text: str) -> None:
    """However long it is, half surrogate pairs included; what is short is in the shape, too."""
    body = f'{{"model": "a", "prompt": "{text}", "user":"{text}"}}'.encode()
    found, fields = await parsed_with_fields(Sent(body), GenerateRequest, MESSAGES_MAX)  # type: ignore[arg-type]
    assert found.model == "a"
    assert found.prompt
    assert bytes(fields["prompt"]) == bytes(fields["user"]) == f'"{text}"'.encode()


async def test_fields_deep_inside_are_named_by_their_place() -> None:
    """Without the types that were tried."""
    body = b'{"model": "a", "messages": [{"role": "user", "content": 1}]}'
    assert "'messages.0.content'" in (await refused(body, ChatRequest)).failure.message


async def test_messages_are_short_whatever_was_sent() -> None:
    """A long name of a field is not repeated."""
    body = b'{"name": "a", "' + b"x" * 100_000 + b'": 1}'
    assert len((await refused(body, KeyRequest)).failure.message) < 2000


async def test_what_a_shape_does_not_know_is_kept_where_it_is_passed_on() -> None:
    """OpenAI's other options go to the endpoint."""
    body = b'{"model": "a", "prompt": "x", "user": "me", "logprobs": null}'
    found = await parsed(Sent(body), GenerateRequest, KEYS_MAX)  # type: ignore[arg-type]
    assert found.model_dump(exclude_none=True)["user"] == "me"


def test_limits_are_named_after_their_surface() -> None:
    """With a burst of a minute's worth."""
    ((limit,),) = tier_limits("management", {"standard": 60}).values()
    assert limit.name == "surfaces.management.tiers.standard.requests_per_minute"
    assert (limit.amount, limit.burst) == (60, 60)

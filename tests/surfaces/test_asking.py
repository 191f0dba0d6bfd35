"""Bodies as shapes, methods, and the limits that surfaces bring."""

import pytest

from olla.failures import Failed, Kind
from olla.surfaces.asking import parsed, tier_limits
from olla.surfaces.wire import ChatRequest, GenerateRequest, KeyRequest, Wire


class Sent:
    """A request with a body."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def body(self) -> bytes:
        """The body."""
        return self._body


async def refused(body: bytes, shape: type[Wire]) -> Failed:
    """The refusal of a body."""
    with pytest.raises(Failed) as raised:
        await parsed(Sent(body), shape)  # type: ignore[arg-type]
    return raised.value


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"", Kind.BODY_NOT_JSON, "not JSON"),
        (b'{"a": ', Kind.BODY_NOT_JSON, "not JSON"),
        (b"[" * 10_000, Kind.BODY_NOT_JSON, "not JSON"),
        (b'"text"', Kind.BAD_REQUEST, "must be a JSON object"),
        (b'{"prompt": "x"}', Kind.MODEL_MISSING, "'model' is required"),
        (b'{"model": 3, "prompt": "x"}', Kind.MODEL_NOT_STRING, "'model'"),
        (b'{"model": "a"}', Kind.BAD_REQUEST, "'prompt' is required"),
        (b'{"model": "a", "prompt": "x", "seed": "1"}', Kind.BAD_REQUEST, "'seed'"),
        (b'{"model": "a", "prompt": "x", "stop": [1]}', Kind.BAD_REQUEST, "'stop"),
        (b'{"model": "a", "prompt": "x", "top_p": NaN}', Kind.BAD_REQUEST, "'top_p'"),
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
    found = await parsed(Sent(body), GenerateRequest)  # type: ignore[arg-type]
    assert found.model_dump(exclude_none=True)["user"] == "me"


def test_limits_are_named_after_their_surface() -> None:
    """With a burst of a minute's worth."""
    ((limit,),) = tier_limits("management", {"standard": 60}).values()
    assert limit.name == "surfaces.management.tiers.standard.requests_per_minute"
    assert (limit.amount, limit.burst) == (60, 60)

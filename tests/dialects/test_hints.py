"""What a body tells routing besides the model."""

from math import inf

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.dialects.dialect import Operation, Peek
from olla.dialects.hints import keep_alive_seconds, load_options
from olla.dialects.registry import DIALECTS

OLLAMA, OPENAI = DIALECTS["ollama"], DIALECTS["openai"]


def peek(body: dict[str, object], operation: Operation = Operation.CHAT) -> Peek:
    """What a native body says."""
    return OLLAMA.peek(operation, msgspec.json.encode({"model": "m", **body}))


def test_only_options_a_model_is_loaded_with_count() -> None:
    """Sampling does not reload a model."""
    body = {"num_ctx": 8192, "temperature": 0.2, "num_gpu": 20, "seed": 1}
    assert load_options(body) == (("num_ctx", 8192.0), ("num_gpu", 20.0))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_ctx": None},
        {"num_ctx": "8192"},
        {"num_ctx": 0},
        {"num_batch": 512},
        {"num_gpu": -1},
        {"num_ctx": [1]},
        {"num_ctx": 1e300},
    ],
)
def test_what_says_nothing_is_left_out(options: dict[str, object]) -> None:
    """Defaults, wrong types and what leaves it to the server."""
    assert load_options(options) == ()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0.0),
        (300, 300.0),
        (-1, inf),
        ("-1m", inf),
        ("0", 0.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("300ms", 0.3),
        ("1.5h", 5400.0),
        (None, None),
        (True, None),
        ("soon", None),
        ("", None),
        ("5", None),
        ([], None),
    ],
)
def test_keep_alive_is_read_as_ollama_reads_it(value: object, seconds: float | None) -> None:
    """Seconds, Go's durations, and negative for ever."""
    found = keep_alive_seconds(value)
    assert found == seconds or found == pytest.approx(seconds)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_no_value_of_an_optional_field_raises(value: object) -> None:
    """The server behind answers for it."""
    keep_alive_seconds(value)
    load_options({"num_ctx": value, "num_gpu": value})


def test_the_prompt_is_what_the_model_reads() -> None:
    """Undecoded, of whichever key holds it."""
    for key, value in (("messages", [{"role": "user", "content": "hi"}]), ("prompt", "hi")):
        found = peek({key: value})
        assert found.prompt is not None
        assert bytes(found.prompt) == msgspec.json.encode(value)
    assert peek({}).prompt is None


def test_an_empty_native_request_only_loads() -> None:
    """Chat and generate; a vector of nothing is no load."""
    assert peek({}).only_loads
    assert peek({"messages": []}).only_loads
    assert peek({"prompt": ""}, Operation.GENERATE).only_loads
    assert not peek({"prompt": "hi"}, Operation.GENERATE).only_loads
    assert not peek({"input": []}, Operation.EMBED).only_loads


def test_the_bound_on_the_output_is_read_in_each_dialect() -> None:
    """`num_predict`, and OpenAI's several names for it; nonsense is none."""
    assert peek({"options": {"num_predict": 7}}).output_max == 7
    assert peek({"options": {"num_predict": -1}}).output_max is None
    for key in ("max_tokens", "max_completion_tokens"):
        body = msgspec.json.encode({"model": "m", "messages": [], key: 9})
        assert OPENAI.peek(Operation.CHAT, body).output_max == 9


def test_other_dialects_name_no_load_options() -> None:
    """OpenAI's format has none; a stranger's `options` there mean nothing."""
    body = b'{"model":"m","messages":[],"options":{"num_ctx":1},"keep_alive":5}'
    found = OPENAI.peek(Operation.CHAT, body)
    assert found.load_options == ()
    assert found.keep_alive is None
    assert not found.only_loads


def test_garbage_among_the_options_says_nothing() -> None:
    """An `options` that is no object is the server's to refuse."""
    assert peek({"options": [1, 2]}).load_options == ()
    assert peek({"options": "x", "keep_alive": {}}).keep_alive is None

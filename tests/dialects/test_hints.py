"""What a body tells routing besides the model."""

from math import inf

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.dialects.dialect import Operation, Peek
from olla.dialects.hints import keep_alive_seconds
from olla.dialects.hints import load_options as load_options_of
from olla.dialects.native_options import LOAD_OPTIONS
from olla.dialects.registry import DIALECTS
from olla.failures import Failed, Kind

OLLAMA, OPENAI = DIALECTS["ollama"], DIALECTS["openai"]


def peek(body: dict[str, object], operation: Operation = Operation.CHAT) -> Peek:
    """What a native body says."""
    return OLLAMA.peek(operation, msgspec.json.encode({"model": "m", **body}))


def load_options(options: dict[str, object]) -> tuple[tuple[str, float], ...]:
    """What of these options belongs to a loaded model."""
    return load_options_of([options.get(name) for name in LOAD_OPTIONS])


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


@pytest.mark.parametrize(
    "value", ["[" + "[]," * 400 + "0]", '"' + "x" * 500 + '"', "{}", "null", '"1"', "1e999", "-"]
)
def test_a_value_of_another_type_says_nothing_of_the_others(value: str) -> None:
    """However long it is; it is not decoded."""
    body = f'{{"model":"m","options":{{"num_ctx":8192,"num_gpu":{value},"num_predict":7}}}}'
    if value == "-":
        body = body.replace("-", '["\\ud800"]')
    found = OLLAMA.peek(Operation.CHAT, body.encode())
    assert found.load_options == (("num_ctx", 8192.0),)
    assert found.output_max == 7
    body = f'{{"model":"m","keep_alive":{value}}}'
    if value not in ("1e999", "-"):
        assert OLLAMA.peek(Operation.CHAT, body.encode()).keep_alive is None


@pytest.mark.parametrize(
    "body",
    [
        '{"model":"m","options":{"num_ctx":%s}}',
        '{"model":"m","options":{"num_ctx":8192.%s}}',
        '{"model":"m","options":{"num_predict":-%s}}',
        '{"model":"m","keep_alive":%s}',
    ],
)
def test_a_number_that_long_is_refused(body: str) -> None:
    """A server might obey it, and reading it takes long: so it is no way around a limit."""
    for digits in ("0" if "." in body else "1") * 401, "1" * 100_000:
        with pytest.raises(Failed) as caught:
            OLLAMA.peek(Operation.CHAT, (body % digits).encode())
        assert caught.value.failure.kind is Kind.BAD_REQUEST
        assert "400 bytes" in caught.value.failure.message


def test_options_that_long_are_refused() -> None:
    """A megabyte of them; no request has more than some hundred bytes."""
    body = b'{"model":"m","options":{"num_ctx":8192,"stop":["%b"]}}'
    assert OLLAMA.peek(Operation.CHAT, body % (b"x" * 1_000_000)).load_options
    with pytest.raises(Failed):
        OLLAMA.peek(Operation.CHAT, body % (b"x" * 1_100_000))


def test_the_bound_on_the_output_is_read_with_its_length() -> None:
    """In OpenAI's format as well."""
    for value, expected in (("[" + "[]," * 1000 + "0]", None), ("7", 7), ('"7"', None)):
        body = f'{{"model":"m","messages":[],"max_tokens":{value}}}'.encode()
        assert OPENAI.peek(Operation.CHAT, body).output_max == expected
    with pytest.raises(Failed):
        OPENAI.peek(Operation.CHAT, b'{"model":"m","max_tokens":%b}' % (b"1" * 1000))

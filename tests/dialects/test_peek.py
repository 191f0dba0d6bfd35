"""Reading model and stream flag from a JSON body."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from olla.dialects.dialect import Operation, Peek
from olla.dialects.json_scan import MEMBERS_MAX, finished
from olla.dialects.peek import (
    MODEL_LENGTH_MAX,
    check_model,
    model_keys,
    other_keys,
    peek_json,
    peek_leniently,
    scan_body,
    scan_leniently,
)
from olla.failures import Failed, Failure, Kind

MODEL = ("model",)
NAMED = ("model", "name")


def peek(body: bytes, keys: tuple[str, ...] = MODEL) -> Peek:
    """What a body says: the same whether it is read at once, as short ones are, or in steps."""
    found: list[Peek | Failure] = []
    for in_steps in (False, True):
        try:
            scanned = finished(scan_body(body)) if in_steps else None
            found.append(
                peek_json(
                    body, keys, streams_by_default=False, model_required=True, scanned=scanned
                )
            )
        except Failed as failed:
            found.append(failed.failure)
    assert found[0] == found[1]
    if isinstance(found[0], Failure):
        raise Failed(found[0])
    return found[0]


def kind_of(body: bytes, keys: tuple[str, ...] = MODEL) -> Kind:
    with pytest.raises(Failed) as caught:
        peek(body, keys)
    return caught.value.failure.kind


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", Kind.BODY_NOT_JSON),
        (b" \n", Kind.BODY_NOT_JSON),
        (b"hello", Kind.BODY_NOT_JSON),
        (b"[]", Kind.BODY_NOT_JSON),
        (b'"model"', Kind.BODY_NOT_JSON),
        (b"null", Kind.BODY_NOT_JSON),
        (b'{"model":"m"', Kind.BODY_NOT_JSON),
        (b'{"model":"m"}{}', Kind.BODY_NOT_JSON),
        (b'{"model":"m","x":NaN}', Kind.BODY_NOT_JSON),
        (b"{'model':'m'}", Kind.BODY_NOT_JSON),
        (b'{"model":"m","prompt":"\xff"}', Kind.BODY_NOT_JSON),
        (b'{"model":"\xc3"}', Kind.BODY_NOT_JSON),
        ('{"model":"m"}'.encode("utf-16"), Kind.BODY_NOT_JSON),
        (b'\xef\xbb\xbf{"model":"m"}', Kind.BODY_NOT_JSON),
        (b'{"model":"m","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", Kind.BAD_REQUEST),
        (b'{"model":' + b"[" * 100_000 + b"]" * 100_000 + b"}", Kind.BAD_REQUEST),
        (b"{}", Kind.MODEL_MISSING),
        (b'{"model":null}', Kind.MODEL_MISSING),
        (b'{"model":""}', Kind.MODEL_MISSING),
        (b'{"nodel":"m"}', Kind.MODEL_MISSING),
        (b'{"x":{"model":"m"}}', Kind.MODEL_MISSING),
        (b'{"name":"m"}', Kind.MODEL_MISSING),
        (b'{"model":1}', Kind.MODEL_NOT_STRING),
        (b'{"model":true}', Kind.MODEL_NOT_STRING),
        (b'{"model":["m"]}', Kind.MODEL_NOT_STRING),
        (b'{"model":{"name":"m"}}', Kind.MODEL_NOT_STRING),
        (b'{"model":"   "}', Kind.MODEL_NOT_STRING),
        (b'{"model":"a\\nb"}', Kind.MODEL_NOT_STRING),
        (b'{"model":"a\\u0000"}', Kind.MODEL_NOT_STRING),
        (b'{"model":"a\\u0085"}', Kind.MODEL_NOT_STRING),
        (b'{"model":"' + b"m" * (MODEL_LENGTH_MAX + 1) + b'"}', Kind.MODEL_NOT_STRING),
        (b'{"model":"m","stream":"true"}', Kind.BAD_REQUEST),
        (b'{"model":"m","stream":1}', Kind.BAD_REQUEST),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_body_that_cannot_be_used_is_refused(body: bytes, kind: Kind) -> None:
    """Whatever is wrong with a body, the client hears what, and nothing else happens."""
    assert kind_of(body) is kind


@pytest.mark.parametrize(
    "body",
    [
        b"{" + b",".join(b'"k%d":1' % n for n in range(MEMBERS_MAX)) + b',"model":"m"}',
        b"{" + b'"x":1,' * MEMBERS_MAX + b'"model":"m"}',
        b'{"model":"m",' + b'"' + b"\\n" * 5_000 + b'":1}',
    ],
    ids=["many keys", "one key over and over", "a key of escapes"],
)
def test_keys_that_no_request_has_are_refused(body: bytes) -> None:
    """At their first thousand, in a body of any length."""
    with pytest.raises(Failed) as caught:
        finished(scan_body(body))
    assert caught.value.failure.status == 400


@pytest.mark.parametrize(
    "name", [b"m" * 2_000_000, b"\\n" * 1_000_000, b"\\ud800" * 200_000, b"\xc3\xa9" * 500_000]
)
def test_a_model_that_long_is_refused_by_its_length(name: bytes) -> None:
    """It is not decoded, and not repeated in the message."""
    body = b'{"prompt":"x","model":"%b"}' % name
    with pytest.raises(Failed) as caught:
        peek(body)
    assert caught.value.failure.kind is Kind.MODEL_NOT_STRING
    assert len(caught.value.failure.message) < 200


def test_a_name_of_nothing_but_escapes_is_a_name() -> None:
    """512 letters of two escapes each are 6 KB of JSON."""
    name = "\U0001f600" * MODEL_LENGTH_MAX
    assert peek(json.dumps({"model": name, "x": "\ud800"}).encode()).model == name
    assert kind_of(json.dumps({"model": name + "x"}).encode()) is Kind.MODEL_NOT_STRING


@pytest.mark.parametrize("size", [3_000, 2_500_000])
def test_a_long_text_may_speak_of_models(size: int) -> None:
    """With quotes and with escaped letters, beside other halves of surrogate pairs."""
    text = '{\\"model\\":\\"\\u006d\\",\\"Model\\":1}' * (size // 40)
    for more in ("", ',"y":"\\ud83d"', ',"y":{"model":1,"Model":2}'):
        assert peek(f'{{"model":"m","x":"{text}"{more}}}'.encode()) == Peek("m", False)
    assert kind_of(f'{{"model":"m","x":"{text}","model":"n"}}'.encode()) is Kind.BAD_REQUEST


def test_refusals_say_what_to_do() -> None:
    """The messages are for the person at the other end."""

    def message(body: bytes) -> str:
        with pytest.raises(Failed) as caught:
            peek(body)
        return caught.value.failure.message

    assert message(b"") == "missing request body; send a JSON object"
    assert message(b"{}").startswith("model is required")
    assert message(b'{"model":17}') == "model must be a string, not 17"
    assert "UTF-8" in message(b'{"model":"\xff"}')
    assert "byte order mark" in message(b"\xef\xbb\xbf{}")


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","Model":"b"}',
        b'{"MODEL":"b","model":"a"}',
        b'{"model":"a","model":"b"}',
        b'{"model":"a","model":"a"}',
        b'{"Model":"a"}',
        b'{"model":"a","mod\\u0065l":"b"}',
        b'{"\\u006dodel":"b","model":"a"}',
        b'{"model":"a","\\u004DODEL":"b"}',
        b'{"model":"a","messages":[{"model":1}],"model":"b"}',
        b'{"model":"a","x":{"model":1},"x":2,"model":"b"}',
        b'{"model":"a", "model" :"b","x":"model"}',
    ],
)
def test_a_body_with_two_models_is_refused(body: bytes) -> None:
    """No second spelling of the key slips a model past the one that was checked."""
    assert kind_of(body) is Kind.BAD_REQUEST
    with pytest.raises(Failed):
        peek_leniently(body)


@pytest.mark.parametrize("key", ["name", "source"])
def test_other_keys_that_name_a_model_are_watched_as_well(key: str) -> None:
    """What is deleted or copied is what was named, in all decoders' eyes."""
    for other in (key, key.upper(), key.title(), f"\\u00{ord(key[0]):02x}{key[1:]}"):
        body = f'{{"{key}":"a","{other}":"b"}}'.encode()
        assert kind_of(body, (key,)) is Kind.BAD_REQUEST
    assert kind_of('{"ſource":"b","source":"a"}'.encode(), ("source",)) is Kind.BAD_REQUEST


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","messages":[{"role":"user","content":"\\"model\\""}]}',
        b'{"model":"m","tools":[{"properties":{"model":{"type":"string"},"Model":1}}]}',
        b'{"model":"m","x":"model"}',
        b'{"model":"m","x":{"model":1},"x":{"model":2}}',
        b'{"model":"m","content":"caf\\u00e9 \\u0065\\u004d \\\\u0065"}',
        b'{"m\\u006fdel":"m"}',
        b' { "model" : "m" } \n',
    ],
)
def test_the_word_model_elsewhere_does_no_harm(body: bytes) -> None:
    """Tools, texts and nested objects may speak of models."""
    assert peek(body) == Peek("m", False)


@pytest.mark.parametrize(
    "text", ["\\ud83d", "\\ud83d\\u0041", "\\uDE00", "\\ud83d\\ud83d\\ude00", "\\ud83d\\n"]
)
def test_text_cut_within_an_emoji_does_no_harm(text: str) -> None:
    """Half a surrogate pair in a prompt is the endpoint's business; servers take it."""
    assert peek(f'{{"model":"m","prompt":"{text}"}}'.encode()) == Peek("m", False)
    assert peek(f'{{"model":"m","{text}":1}}'.encode()) == Peek("m", False)
    assert kind_of(f'{{"model":"m","x":"{text}","model":"n"}}'.encode()) is Kind.BAD_REQUEST
    assert kind_of(f'{{"model":"m","x":"{text}"'.encode()) is Kind.BODY_NOT_JSON


def test_an_escaped_backslash_is_no_half_pair() -> None:
    """`\\\\ud83d` is a backslash and letters."""
    assert peek(b'{"model":"a\\\\ud83d","x":"\\ud83d"}').model == "a\\ud83d"


@pytest.mark.parametrize(
    ("stream", "default", "expected"),
    [
        ("true", False, True),
        ("false", True, False),
        ("null", True, True),
        ("null", False, False),
        (None, True, True),
        (None, False, False),
    ],
)
def test_the_default_of_stream_holds_where_it_says_nothing(
    stream: str | None, default: bool, expected: bool
) -> None:
    """An absent and a null flag are the dialect's default."""
    body = b'{"model":"m"}' if stream is None else b'{"model":"m","stream":%b}' % stream.encode()
    found = peek_json(body, MODEL, streams_by_default=default, model_required=True)
    assert found.stream is expected


@pytest.mark.parametrize(
    ("body", "model"),
    [
        (b'{"model":"a","name":"b"}', "a"),
        (b'{"model":"","name":"b"}', "b"),
        (b'{"model":null,"name":"b"}', "b"),
        (b'{"name":"b"}', "b"),
    ],
)
def test_the_old_key_counts_where_the_new_one_is_silent(body: bytes, model: str) -> None:
    """`name` is read as Ollama reads it: only where `model` is empty."""
    assert peek(body, NAMED).model == model


def test_each_operation_knows_its_keys() -> None:
    """A copy names its source, management takes the old key, inference does not."""
    assert model_keys(Operation.COPY) == ("source",)
    assert model_keys(Operation.DELETE) == NAMED
    assert model_keys(Operation.CHAT) == MODEL
    assert other_keys(Operation.COPY) == ("destination",)
    assert other_keys(Operation.CHAT) == ()


def test_further_models_are_told() -> None:
    """All that stand there, and none that could be read in two ways."""

    def others(body: bytes) -> tuple[str, ...]:
        return peek_json(
            body,
            NAMED,
            others=("name", "from"),
            streams_by_default=False,
            model_required=True,
        ).others

    assert others(b'{"model":"m","from":"base","name":"n"}') == ("n", "base")
    assert others(b'{"model":"m","files":{"a":"sha256:1"}}') == ()
    assert others(b'{"model":"m","from":""}') == ()
    for body in (b'{"model":"m","from":"a","FROM":"b"}', b'{"model":"m","from":"a","from":"b"}'):
        with pytest.raises(Failed):
            others(body)


def test_unusual_names_are_names() -> None:
    """A model's name may hold any letters, and blanks around it are the endpoint's business."""
    for name in ("hf.co/u/r:Q4_K_M", "mödel", "模型", " llama3 ", "😀", "m" * MODEL_LENGTH_MAX):
        assert peek(json.dumps({"model": name}).encode()).model == name
        assert peek(json.dumps({"model": name}, ensure_ascii=False).encode()).model == name
        assert check_model(name) == name


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"hello", b"[1]", b"{", b"\xff", b"{}", b'{"model":null}'),
        b'{"model":"m","x":"\xff"}',
        b'{"model":"m","x":' + b"[" * 2_000 + b"]" * 2_000 + b"}",
    ],
)
def test_nothing_is_asked_of_unknown_paths(body: bytes) -> None:
    """A path that olla does not know may take any body."""
    assert peek_leniently(body) == Peek(None, False)
    assert peek_leniently(body, finished(scan_leniently(body))) == Peek(None, False)


def test_unknown_paths_may_name_a_model() -> None:
    """Where a body names one anyway it can be routed by."""
    assert peek_leniently(b'{"model":"m","stream":true}') == Peek("m", True)
    assert peek_leniently(b'{"model":"m","stream":"yes"}') == Peek("m", False)


# --- properties ---------------------------------------------------------------------------------

_finite = st.floats(allow_nan=False, allow_infinity=False)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | _finite | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["model", "Model", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
_objects = st.dictionaries(
    st.sampled_from(["model", "stream", "messages", "name", "options"]) | st.text(max_size=6),
    _values,
    max_size=6,
)


@given(_objects, st.booleans(), st.sampled_from([None, 1]))
def test_it_agrees_with_json_loads(
    value: dict[str, object], ascii: bool, indent: int | None
) -> None:
    """On JSON objects it finds what Python's own decoder finds, or refuses."""
    body = json.dumps(value, ensure_ascii=ascii, indent=indent).encode()
    model, stream = value.get("model"), value.get("stream", False)
    try:
        found = peek(body)
    except Failed as failed:
        kind = failed.failure.kind
        others = [key for key in value if key.casefold() == "model" and key != "model"]
        if kind is Kind.MODEL_MISSING:
            assert model is None or model == ""
        elif kind is Kind.MODEL_NOT_STRING:
            assert not isinstance(model, str) or not model.isprintable() or not model.strip()
        else:
            assert kind is Kind.BAD_REQUEST
            assert others or not (stream is None or isinstance(stream, bool))
        return
    assert found.model == model
    assert found.stream is bool(stream)


_pieces = st.sampled_from(
    [
        b'"model"',
        b'"Model"',
        b'"mod\\u0065l"',
        b":",
        b",",
        b"{",
        b"}",
        b"[",
        b"]",
        b'"m"',
        b" ",
        b'"stream"',
        b"true",
        b"null",
        b"1",
        b"\xff",
        b"\\",
        b'"',
        b"\\u00",
        b"\xef\xbb\xbf",
    ]
)


@given(st.binary() | st.lists(_pieces, max_size=24).map(b"".join))
def test_it_raises_nothing_but_failed(body: bytes) -> None:
    """No bytes surprise it."""
    for keys in (MODEL, NAMED, ("source",)):
        try:
            found = peek(body, keys)
        except Failed:
            continue
        assert found.model
    with contextlib.suppress(Failed):
        peek_leniently(body)


_pairs = st.lists(
    st.tuples(
        st.sampled_from(["model", "Model", "mod\\u0065l", "x", "X", "\\u004dodel"]),
        st.sampled_from(['"a"', '"b"', '{"model":"c"}', '["model"]', "null", '"\\u0065"']),
    ),
    max_size=5,
)


@given(_pairs)
def test_what_it_accepts_has_one_reading(pairs: list[tuple[str, str]]) -> None:
    """First or last of several keys, case minded or not: all readings give the same model."""
    body = ("{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}").encode()
    try:
        found = peek(body)
    except Failed:
        return
    read = json.loads(body, object_pairs_hook=list)
    readings = [value for key, value in read if key.lower() == "model"]
    assert readings == [found.model]

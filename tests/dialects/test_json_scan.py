"""Members of a JSON object and their places, in steps that are short whatever the body holds."""

import json
import sys
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.bodies.shapes import JSON, SHAPES, Shape
from olla.dialects import json_scan
from olla.dialects.json_scan import (
    MEMBERS_MAX,
    OWN_LIMITS,
    JsonObject,
    ScanLimits,
    TooComplex,
    finished,
    scan_abridged,
    scan_object,
)
from olla.dialects.top_level import NotAnObject

MEGABYTE = 1_000_000
ABRIDGED = ScanLimits(whole=0)
"""As a long body is scanned, however short it is."""
NARROW = {"_WINDOW": 64, "_SLICE": 32, "_BLOCK": 16}


@pytest.fixture(scope="module", autouse=True)
def narrow_steps() -> Iterator[None]:
    """Steps of a few bytes, so that short bodies have as many edges as long ones."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in NARROW.items():
            patch.setattr(json_scan, name, value)
        yield


@pytest.fixture
def real_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps as they are."""
    for name, value in {"_WINDOW": 16_384, "_SLICE": 262_144, "_BLOCK": 4_096}.items():
        monkeypatch.setattr(json_scan, name, value)


def scanned(body: bytes, limits: ScanLimits = ABRIDGED) -> JsonObject:
    """The body, scanned at once."""
    return finished(scan_object(body, limits))


def decoded(body: bytes) -> object:
    """What the json module reads, objects as lists of all that stands in them."""
    return json.loads(body, object_pairs_hook=list)


def read(body: bytes) -> list[tuple[str, object]] | None:
    """Names and values as both ways of scanning find them; None for what is refused by both."""
    found: list[object] = []
    for limits in (ABRIDGED, ScanLimits()):
        try:
            members = scanned(body, limits).members
        except NotAnObject:
            found.append(None)
        else:
            found.append([(name, decoded(body[start:end])) for name, start, end in members])
    assert found[0] == found[1]
    return found[0]  # type: ignore[return-value]


# --- against the json module ----------------------------------------------------------------------

_texts = (
    st.text(max_size=12)
    | st.text(st.characters(), max_size=4)  # halves of surrogate pairs, too
    | st.text('\\"\n\t x\u00e9\U0001f600', min_size=10, max_size=90)
)
_names = st.sampled_from(["model", "stream", "options", "messages"]) | st.text(
    '\\"\n\u00e9Kx', max_size=2
)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e300, 1e300) | _texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_names, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(_names, _values, max_size=6), st.booleans(), st.sampled_from([None, 1, 70]))
def test_it_finds_what_the_json_module_finds(
    value: dict[str, object], ascii: bool, indent: int | None
) -> None:
    """The same members in the same order, each at the place where its value stands."""
    text = json.dumps(value, ensure_ascii=ascii, indent=indent)
    body = text.encode("utf-8", "replace")
    assert read(body) == decoded(body)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "\\u0061"]), st.integers()), max_size=6))
def test_a_name_that_stands_there_twice_is_found_twice(pairs: list[tuple[str, int]]) -> None:
    """However it is spelled; of its fields the last counts, as with the json module."""
    body = ("{" + ",".join(f'"{name}":{value}' for name, value in pairs) + "}").encode()
    assert read(body) == decoded(body)
    fields = {name: json.loads(bytes(raw)) for name, raw in scanned(body).fields().items()}
    assert fields == json.loads(body)


_pieces = st.sampled_from(
    [
        *(
            b'"',
            b"\\",
            b'\\"',
            b"\\\\",
            b"\\n",
            b"\\u0041",
            b"\\ud83d",
            b"\\uDE00",
            b"\\u00",
            b"\\x",
        ),
        *(
            b"{",
            b"}",
            b"[",
            b"]",
            b":",
            b",",
            b" ",
            b"\n",
            b"        ",
            b"1",
            b"-1.5e3",
            b"01",
            b"true",
        ),
        *(
            b"nul",
            b"null",
            b'"a"',
            b'"a":',
            b'"a":1',
            b"x" * 9,
            b"x" * 40,
            b"\\\\" * 9,
            b'\\"' * 20,
        ),
        *(b"\xff", b"\xc3", "é".encode() * 7, "\U0001f600".encode() * 5, b"\x00", b"\x1f", b"NaN"),
    ]
)


@given(
    st.binary()
    | st.lists(_pieces, max_size=30).map(b"".join)
    | st.lists(_pieces, max_size=12).map(lambda pieces: b'{"a":"%b","b":1}' % b"".join(pieces))
    | st.lists(_pieces, max_size=12).map(lambda pieces: b'{"a":[%b],"b":1}' % b"".join(pieces))
)
def test_what_it_accepts_is_json_and_read_as_such(body: bytes) -> None:
    """No bytes surprise it, and both ways of scanning accept the same."""
    found = read(body)
    if found is not None:
        assert found == decoded(body)


@given(
    st.dictionaries(_names, _values, max_size=5),
    st.integers(0),
    st.sampled_from(b'\\"{}[]:,\xff\x00'),
)
def test_a_byte_that_is_changed_is_read_as_the_json_module_reads_it(
    value: dict[str, object], at: int, byte: int
) -> None:
    """Or refused: what is not JSON any more is no object."""
    body = bytearray(json.dumps(value).encode())
    body[at % len(body)] = byte
    found = read(bytes(body))
    try:
        expected = decoded(bytes(body))
    except (ValueError, UnicodeDecodeError):
        expected = None
    if not isinstance(expected, list) or not bytes(body).lstrip().startswith(b"{"):
        expected = None
    assert found == expected or (found is None and b"NaN" in body)


@given(st.dictionaries(_names, _values, max_size=5))
def test_the_abridged_copy_is_the_same_object(value: dict[str, object]) -> None:
    """With `x` in place of a long text, and nothing else."""

    def same(short: object, long: object) -> bool:
        if isinstance(long, dict) and isinstance(short, dict):
            return len(short) == len(long) and all(map(same, short.values(), long.values()))
        if isinstance(long, list) and isinstance(short, list):
            return len(short) == len(long) and all(map(same, short, long))
        if isinstance(long, str):
            size = len(json.dumps(long)) - 2
            if size < 16:
                return not any(map(str.isascii, long)) or len(short) == len(long)  # type: ignore[arg-type]
            return short == "x" if size > 32 else isinstance(short, str)
        return short == long

    body = json.dumps(value).encode()
    _, copy = finished(scan_abridged(body, ABRIDGED))
    assert same(json.loads(bytes(copy)), json.loads(body))


@pytest.mark.parametrize("length", range(20, 120))
@pytest.mark.parametrize(
    "text", ["x", "\\n", '\\"', "\\\\", "\\u0041", "\\ud83d", "é", "\U0001f600"]
)
def test_no_edge_of_a_step_cuts_an_escape_or_a_letter(length: int, text: str) -> None:
    """A long text is checked in pieces, and each of them is a text."""
    for start in ("", "x", "xx", "xxx"):
        value = start + text * length
        body = f'{{"a":"{value}","b":2}}'.encode()
        assert scanned(body).members == scanned(body, ScanLimits()).members
        for bad in (b"\x01", b"\\x", b"\xff", b"\\u12"):
            with pytest.raises(NotAnObject):
                scanned(b'{"a":"%b%b","b":2}' % (value.encode(), bad))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "truncated"),
        (b"[]", "another value"),
        (b'"' + b"x" * 500 + b'"', "another value"),
        (b"{", "name"),
        (b'{"a"', "name"),
        (b'{"a":', "truncated"),
        (b'{"a":1', "truncated"),
        (b'{"a":1,}', "name"),
        (b'{"a":1 "b":2}', "comma"),
        (b'{"a":1}}', "follows"),
        (b'{"a":"' + b"x" * 500, "truncated"),
        (b'{"a":"' + b"x" * 500 + b"\xff", "UTF-8"),
        (b'{"a":nul}', "invalid"),
    ],
)
def test_it_says_why_it_refuses(body: bytes, why: str) -> None:
    """In words that help whoever made the body."""
    with pytest.raises(NotAnObject, match=why):
        scanned(body)


def steps_until_refused(body: bytes) -> int:
    """After how many steps a body turns out to be too complex."""
    count = 0
    try:
        for _ in scan_object(body):
            count += 1
    except TooComplex:
        return count
    raise AssertionError("it was read")


# --- bounds -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("real_steps")
@pytest.mark.parametrize(
    ("filling", "fits"),
    [
        (b"[],", 500_000),
        (b"{},", 500_000),
        (b"1,", 8_000_000),
        (b'"",', 8_000_000),
        (b'"\\n",', 4_000_000),
    ],
)
def test_how_much_a_long_body_may_hold_is_bounded(filling: bytes, fits: int) -> None:
    """Just below the bound it is read; above it is refused before all of it was looked at."""
    body = b'{"a":[%b0],"b":[%b0]}'
    most = 4 * 1024 * 1024 // len(filling) + 1  # of at least that length it is a long body
    padding = b'"' + b"x" * 4 * 1024 * 1024 + b'",'
    below = body % (filling * (fits - 10), padding)
    assert [name for name, _, _ in scanned(below, ScanLimits()).members] == ["a", "b"]
    above = body % (filling * max(2 * fits, most), padding * 4)
    assert steps_until_refused(above) * 16_384 < len(filling) * (fits + 16_384)


@pytest.mark.parametrize(
    "body",
    [
        b"{" + b",".join(b'"%d":1' % number for number in range(MEMBERS_MAX + 1)) + b"}",
        b"{" + b",".join([b'"a":1'] * (MEMBERS_MAX + 1)) + b"}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' + b" " * 100_000 + b"1}",
        b'{"a":' + b"9" * 5_000 + b"}",
        b'{"a":0.' + b"9" * 5_000 + b',"b":1}',
    ],
)
@pytest.mark.parametrize("limits", [ABRIDGED, ScanLimits()], ids=["abridged", "whole"])
def test_what_no_request_needs_is_refused(body: bytes, limits: ScanLimits) -> None:
    """Very many names, also one over and over; depth; white space; long numbers."""
    with pytest.raises(NotAnObject):
        scanned(body, limits)


def test_olla_reads_less_of_what_it_makes_objects_of() -> None:
    """Its own APIs take some thousand messages, with texts of any length."""
    message = b'{"role":"user","content":"%b"}'
    few = b'{"messages":[%b]}' % b",".join([message % b"hi"] * 4_000)
    assert scanned(few, OWN_LIMITS).members
    many = b'{"messages":[%b]}' % b",".join([message % b"hi"] * 5_001)
    with pytest.raises(TooComplex):
        scanned(many, OWN_LIMITS)
    assert scanned(b'{"messages":[%b]}' % (message % (b"\\n," * 1_000_000)), OWN_LIMITS).members


_SHAPES = [shape for shape in SHAPES if shape.content_type == JSON]


@pytest.mark.usefixtures("real_steps")
@pytest.mark.parametrize("shape", _SHAPES, ids=lambda shape: shape.name)
def test_ten_megabytes_take_few_calls_and_short_steps(shape: Shape) -> None:
    """Whatever they hold: some dozen calls for each 16 KB, none for each element; and no step but
    the reading of a value in C has more than a window or a slice before it."""
    body = shape.make(10 * MEGABYTE)
    calls = steps = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    generator = scan_object(body)
    sys.setprofile(count)
    try:
        while True:
            next(generator)
            steps += 1
    except (StopIteration, NotAnObject):
        pass
    finally:
        sys.setprofile(None)
    windows = len(body) // 16_384 + 1
    assert calls < 60 * windows + 40 * MEMBERS_MAX
    assert steps < 3 * windows + 2 * MEMBERS_MAX


@pytest.mark.usefixtures("real_steps")
@pytest.mark.parametrize("shape", _SHAPES, ids=lambda shape: shape.name)
def test_ten_megabytes_take_little_memory(shape: Shape) -> None:
    """At most as much again as the body has, and a few slices."""
    body = shape.make(10 * MEGABYTE)
    tracemalloc.start()
    try:
        finished(scan_object(body))
    except NotAnObject:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1.2 * len(body) + 2 * MEGABYTE

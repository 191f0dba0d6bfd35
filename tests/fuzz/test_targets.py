"""The parser edges agree with reference parsers, whatever comes in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS

TOKENS = {
    "head": (
        b"HTTP/1.1 200 OK",
        b"\r\n",
        b"\n",
        b"\r",
        b": ",
        b"Content-Length",
        b"7",
        b" ",
        b"\t",
        b"Transfer-Encoding",
        b"chunked",
        b"Connection",
        b"close",
        b",",
        b"\0",
        b"\xff",
        b"X-A",
    ),
    "request": (
        b"POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n",
        b"\r\n",
        b"\n",
        b"Content-Length: 3",
        b"Host: y",
        b" ",
        b"X: ",
        b"Connection: close",
        b"\0",
        b"\r",
        b"{}",
    ),
    "chunks": (
        b"\x01\x04\x07\x0a",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"0\r\n",
        b"\r\n",
        b"\n",
        b";",
        b"a",
        b"F",
        b"x=y",
        b"hello",
        b" ",
        b"-1",
        b"0x5",
        b"\0",
        b"X: y\r\n",
    ),
    "peek": (
        b'"model"',
        b'"m"',
        b":",
        b",",
        b"{",
        b"}",
        b'"stream"',
        b"true",
        b"null",
        b'"Model"',
        b"[",
        b"]",
        b'"mod\\u0065l"',
        b'"name"',
        b" ",
        b"1",
        b'"\\ud800"',
        b"\xff",
        b"\xef\xbb\xbf",
    ),
    "scan": (
        b'{"a":"',
        b'"',
        b"\\",
        b'\\"',
        b"\\\\",
        b"\\u0041",
        b"\\ud83d",
        b"\\ude00",
        b"x" * 40,
        b"\\n" * 20,
        b'","b":1}',
        b"[",
        b"]",
        b"{",
        b"}",
        b":",
        b",",
        b" " * 20,
        b"\xc3\xa9",
        b"\xff",
        b"\x01",
    ),
    "settings": (
        b"server:",
        b" ",
        b"\n",
        b"  port: 1",
        b"{",
        b"}",
        b"[",
        b"]",
        b", ",
        b"a: b",
        b"- ",
        b"&x ",
        b"*x",
        b"${A:-b}",
        b"'",
        b'"',
        b"#",
        b"discovery:",
        b"\t",
        b"<<: ",
        b"!!int ",
        b"|",
    ),
}


@pytest.mark.parametrize("target", TARGETS)
def test_each_target_takes_its_seeds(target: str) -> None:
    """Or fuzzing would begin nowhere."""
    for seed in SEEDS[target]:
        TARGETS[target](seed)


@pytest.mark.parametrize("target", TARGETS)
@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_are_read_as_the_reference_reads_them(target: str, data: bytes) -> None:
    """Or refused; nothing crashes."""
    TARGETS[target](data)


@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
def test_what_looks_right_is_read_as_the_reference_reads_it(
    target: str, data: st.DataObject
) -> None:
    """Put together from pieces of real inputs, in any order."""
    pieces = data.draw(st.lists(st.sampled_from(TOKENS[target]), max_size=25))
    TARGETS[target](b"".join(pieces))


@pytest.mark.parametrize("target", TARGETS)
@given(data=st.data())
def test_a_seed_with_some_bytes_changed_is_read_as_the_reference_reads_it(
    target: str, data: st.DataObject
) -> None:
    """Flipped, taken out, put in."""
    raw = bytearray(data.draw(st.sampled_from(SEEDS[target])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw)))
        piece = data.draw(st.binary(max_size=2))
        raw[at : at + data.draw(st.integers(0, 2))] = piece
    TARGETS[target](bytes(raw))

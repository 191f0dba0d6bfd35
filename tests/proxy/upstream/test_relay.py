"""The last records, kept while they pass."""

from hypothesis import given
from hypothesis import strategies as st

from olla.proxy.upstream.relay import Tail


@given(lines=st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=30))
def test_the_last_lines_are_kept_whole(lines: list[bytes]) -> None:
    """However they are cut into pieces, the end of the stream is there."""
    stream = b"".join(line.replace(b"\n", b".") + b"\n" for line in lines)
    tail = Tail()
    for at in range(0, len(stream), 7):
        tail.add(stream[at : at + 7])
    kept = tail.value()
    assert stream.endswith(kept)
    assert kept.endswith(stream.splitlines(keepends=True)[-1])
    assert not tail.mid_record


def test_a_short_answer_is_kept_as_a_whole() -> None:
    """A JSON object without line ends is one run."""
    tail = Tail()
    for piece in (b'{"a":', b"1", b"}"):
        tail.add(piece)
    assert tail.value() == b'{"a":1}'
    assert tail.mid_record


def test_old_records_are_let_go() -> None:
    """A long stream costs no more than a short one."""
    tail = Tail()
    for number in range(10_000):
        tail.add(b"%d\n" % number)
    assert tail.value() == b"9994\n9995\n9996\n9997\n9998\n9999\n"


def test_an_endless_record_is_bounded_and_said_to_be_cut() -> None:
    """Two megabytes, and then only its end."""
    tail = Tail()
    for _ in range(100):
        tail.add(b"x" * 65536)
    assert tail.overflowed
    assert len(tail.value()) < 2 * 1024 * 1024 + 65536
    tail.add(b"\n")
    tail.add(b"next\n")
    assert not tail.overflowed


@given(pieces=st.lists(st.binary(min_size=1, max_size=9000), min_size=1, max_size=8))
def test_the_start_and_the_lines_are_those_of_the_whole(pieces: list[bytes]) -> None:
    """The first 16 KB are kept where they are wanted, and every line end is counted."""
    whole = b"".join(pieces)
    wanted, plain = Tail(with_start=True), Tail()
    for piece in pieces:
        wanted.add(piece)
        plain.add(piece)
    assert wanted.start() == whole[:16_384]
    assert plain.start() == b""
    assert wanted.lines == plain.lines == whole.count(b"\n")

"""The tail buffer, which keeps the last records of a relayed response."""

from hypothesis import given
from hypothesis import strategies as st

from olla.proxy.upstream.relay import Tail


@given(lines=st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=30))
def test_the_last_lines_are_kept_whole(lines: list[bytes]) -> None:
    """For any split of the stream into pieces."""
    stream = b"".join(line.replace(b"\n", b".") + b"\n" for line in lines)
    tail = Tail()
    for at in range(0, len(stream), 7):
        tail.add(stream[at : at + 7])
    kept = tail.value()
    assert stream.endswith(kept)
    assert kept.endswith(stream.splitlines(keepends=True)[-1])
    assert not tail.mid_record


def test_a_short_response_is_kept_as_a_whole() -> None:
    """A JSON object without line ends is one run."""
    tail = Tail()
    for piece in (b'{"a":', b"1", b"}"):
        tail.add(piece)
    assert tail.value() == b'{"a":1}'
    assert tail.mid_record


def test_old_records_are_dropped() -> None:
    """A long stream takes no more memory than a short one."""
    tail = Tail()
    for number in range(10_000):
        tail.add(b"%d\n" % number)
    assert tail.value() == b"9994\n9995\n9996\n9997\n9998\n9999\n"


def test_a_long_record_is_truncated_and_marked() -> None:
    """Above two megabytes only its end is kept."""
    tail = Tail()
    for _ in range(100):
        tail.add(b"x" * 65536)
    assert tail.overflowed
    assert len(tail.value()) < 2 * 1024 * 1024 + 65536
    tail.add(b"\n")
    tail.add(b"next\n")
    assert not tail.overflowed


@given(pieces=st.lists(st.binary(min_size=1, max_size=9000), min_size=1, max_size=8))
def test_the_start_is_kept_on_request_and_lines_are_counted(pieces: list[bytes]) -> None:
    """The first 16 KB, and every line end of the whole payload."""
    whole = b"".join(pieces)
    with_start, plain = Tail(with_start=True), Tail()
    for piece in pieces:
        with_start.add(piece)
        plain.add(piece)
    assert with_start.start() == whole[:16_384]
    assert plain.start() == b""
    assert with_start.lines == plain.lines == whole.count(b"\n")

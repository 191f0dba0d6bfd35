"""Decoding compressed bodies."""

import gzip
import random
import zlib
from collections.abc import Callable

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from olla.failures import Failed, Kind
from olla.proxy.http.content_coding import (
    AnswerDecoder,
    ContentDecoder,
    Undecodable,
    coding_of,
    normalized,
)


def raw_deflate(data: bytes) -> bytes:
    """Compress without zlib's header, as some senders do."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


PACK: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "zstd": ("zstd", zstd.compress),
}


def decoded(coding: str, pieces: list[bytes], size: int = 1 << 20) -> tuple[bytes, bool]:
    """Decode `pieces` in slices of at most `size`; return the result and whether it is complete."""
    decoder = ContentDecoder(coding)
    out = []
    for piece in pieces:
        decoder.feed(piece)
        while part := decoder.take(size):
            assert len(part) <= size
            out.append(part)
    return b"".join(out), decoder.complete


@pytest.mark.parametrize("form", PACK)
def test_a_body_can_be_split_anywhere(form: str) -> None:
    """At every byte, with large and small slices; a part of a body is incomplete."""
    coding, pack = PACK[form]
    text = b'{"model": "m", "prompt": "' + b"word " * 20 + b'"}'
    packed = pack(text)
    for cut in range(len(packed) + 1):
        for size in (1, 7, 1 << 20):
            assert decoded(coding, [packed[:cut], packed[cut:]], size) == (text, True)
        if cut < len(packed):
            part, complete = decoded(coding, [packed[:cut]])
            assert text.startswith(part)
            assert not complete


@given(st.sampled_from(sorted(PACK)), st.binary(max_size=3000), st.integers(1, 400))
def test_decoding_reverses_encoding(form: str, data: bytes, step: int) -> None:
    """For arbitrary bytes in pieces of any size."""
    coding, pack = PACK[form]
    packed = pack(data)
    pieces = [packed[at : at + step] for at in range(0, len(packed), step)]
    assert decoded(coding, pieces, step) == (data, True)


@pytest.mark.parametrize("form", PACK)
def test_long_bodies_are_decoded_in_slices(form: str) -> None:
    """Incompressible data, and data that compresses by a factor of a thousand."""
    coding, pack = PACK[form]
    for data in (random.Random(1).randbytes(3_000_000), bytes(30_000_000)):
        assert decoded(coding, [pack(data)], 65536) == (data, True)


@pytest.mark.parametrize("form", ["gzip", "zstd"])
def test_several_members_are_decoded_in_sequence(form: str) -> None:
    """As the formats allow, up to a limit."""
    coding, pack = PACK[form]
    assert decoded(coding, [pack(b"one ") + pack(b"") + pack(b"two")]) == (b"one two", True)
    assert decoded(coding, [pack(b"one "), pack(b"two")]) == (b"one two", True)
    with pytest.raises(Undecodable):
        decoded(coding, [pack(b"") * 100_000])


@pytest.mark.parametrize("form", PACK)
@pytest.mark.parametrize("after", [b"x", b"\x00" * 10, random.Random(2).randbytes(100)])
def test_bytes_after_the_end_are_rejected(form: str, after: bytes) -> None:
    """They could be taken for a second body."""
    coding, pack = PACK[form]
    try:
        _, complete = decoded(coding, [pack(b"text") + after])
    except Undecodable:
        return
    assert not complete  # a byte may be the beginning of another member


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd"])
@given(data=st.binary(min_size=20, max_size=200))
def test_garbage_is_undecodable_or_incomplete(coding: str, data: bytes) -> None:
    """No other exception is raised."""
    try:
        _, complete = decoded(coding, [data])
    except Undecodable:
        return
    assert not complete or coding == "deflate"


def test_a_zstd_window_above_eight_megabytes_is_rejected() -> None:
    """The decoder would allocate the window before it returns a byte."""
    options = {zstd.CompressionParameter.window_log: 27}
    packer = zstd.ZstdCompressor(options=options)
    packed = packer.compress(b"x" * 1000) + packer.flush()
    with pytest.raises(Undecodable):
        decoded("zstd", [packed])


@pytest.mark.parametrize(
    ("value", "name"),
    [
        *((each, "") for each in (None, "", " identity ", "Identity")),
        *(("zstd", "zstd"), (" GZIP", "gzip"), ("x-gzip", "gzip"), ("Deflate", "deflate")),
    ],
)
def test_content_encoding_is_parsed(value: str | None, name: str) -> None:
    """In any case, with surrounding blanks."""
    assert coding_of(value) == name


@pytest.mark.parametrize("value", ["br", "compress", "gzip, zstd", "gzip;q=1", "aws-chunked"])
def test_other_codings_are_rejected(value: str) -> None:
    """The error names the supported codings."""
    assert normalized(value) is None
    with pytest.raises(Failed) as caught:
        coding_of(value)
    assert caught.value.failure.kind is Kind.ENCODING_UNSUPPORTED
    assert "zstd, gzip or deflate" in caught.value.failure.message


@pytest.mark.parametrize("form", PACK)
def test_records_of_a_response_stay_whole(form: str) -> None:
    """Pieces are cut after line ends, and compressed and decoded bytes are counted."""
    coding, pack = PACK[form]
    text = b"".join(b'{"response": "%d"}\n' % number for number in range(20_000)) + b"rest"
    packed = pack(text)
    decoder = AnswerDecoder(coding)
    pieces = decoder.read(packed[:5000]) + decoder.read(packed[5000:])
    assert b"".join(pieces) == text
    assert pieces[-1] == b"rest"
    assert sum(piece.endswith(b"\n") for piece in pieces) >= len(pieces) // 2
    assert (decoder.received, decoder.size) == (len(packed), len(text))


@pytest.mark.parametrize("form", PACK)
@pytest.mark.parametrize("size", [40 << 20, 400 << 20])
def test_a_response_that_expands_too_much_is_not_decoded(form: str, size: int) -> None:
    """Decoding stops at about 8 MB."""
    coding, pack = PACK[form]
    decoder = AnswerDecoder(coding)
    with pytest.raises(Undecodable):
        decoder.read(pack(bytes(size)))
    assert decoder.size <= 9 << 20

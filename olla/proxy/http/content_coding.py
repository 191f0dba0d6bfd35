"""Decode compressed bodies (gzip, deflate, zstd) in slices of bounded size.

A kilobyte of compressed data may expand to a megabyte. So a decoder returns no more bytes at a
time than requested. It rejects long chains of tiny members, and zstd windows above the 8 MB that
RFC 9659 allows. The calling code limits the total size.
"""

import sys
import zlib
from typing import Final

from olla.failures import Failed, Failure, Kind

if sys.version_info >= (3, 14):
    from compression.zstd import DecompressionParameter, ZstdDecompressor
else:
    from backports.zstd import DecompressionParameter, ZstdDecompressor

__all__ = ["AnswerDecoder", "ContentDecoder", "Undecodable", "coding_of", "normalized"]

_DECODED: Final = ("zstd", "gzip", "deflate")
_MEMBERS_MAX = 256
"""Consecutive members (gzip's term) or frames (zstd's term). Senders normally make one."""
_INPUT_MAX = 65536
"""Bytes passed to zlib at once: it copies the input that it leaves unread."""
_ZSTD_LIMITS: dict[int, int] = {DecompressionParameter.window_log_max: 23}


_SLICE = 65536
_READ_MAX = 8 * 1024 * 1024
_RATIO_MAX = 200
_RATIO_FREE = 1_048_576
"""Limits of a decoded response: bytes per read (20 ms of work), and for the whole response the
expansion ratio, which applies above `_RATIO_FREE` bytes."""


class Undecodable(Exception):
    """The bytes do not match their coding; the message has the reason."""


def normalized(value: str) -> str | None:
    """Return the coding named by a Content-Encoding field: "" for none, None if unsupported."""
    name = value.strip().lower()
    if name in ("", "identity"):
        return ""
    if name == "x-gzip":  # RFC 9110, section 8.4.1.3
        return "gzip"
    return name if name in _DECODED else None


def coding_of(value: str | None) -> str:
    """Return the coding of a request's body from its Content-Encoding field; "" for none.

    Raises:
        Failed: the coding is not supported.
    """
    if value is None:
        return ""
    name = normalized(value)
    if name is None:
        message = (
            f"Content-Encoding '{value[:40]}' is not supported for request bodies; send the body "
            "uncompressed, or encoded as zstd, gzip or deflate"
        )
        raise Failed(Failure(Kind.ENCODING_UNSUPPORTED, message))
    return name


class ContentDecoder:
    """Decodes one body. After each `feed`, call `take` until it returns nothing."""

    __slots__ = ("_at", "_coding", "_input", "_members", "_zlib", "_zstd")

    def __init__(self, coding: str) -> None:
        """`coding` is a result of `normalized`."""
        self._coding = coding
        self._input = b""
        self._at = 0  # bytes of the input that were decoded
        self._members = 0
        self._zlib: zlib._Decompress | None = None
        self._zstd: ZstdDecompressor | None = None

    @property
    def complete(self) -> bool:
        """Whether the input so far ends at the end of a member."""
        inside = self._zlib is not None or self._zstd is not None
        return self._members > 0 and not inside and self._at == len(self._input)

    def feed(self, data: bytes) -> None:
        """Add a piece of the encoded body."""
        self._input = self._input[self._at :] + data
        self._at = 0

    def take(self, size: int) -> bytes:
        """Return up to `size` more bytes of the decoded body; none if more input is needed.

        Raises:
            Undecodable: the input cannot be decoded.
        """
        while True:
            if self._zlib is None and self._zstd is None and not self._begin():
                return b""
            try:
                piece = self._unzstd(size) if self._zlib is None else self._inflate(size)
            except Exception as error:  # zlib.error, ZstdError
                raise Undecodable(f"invalid {self._coding} data: {error}") from None
            if piece:
                return piece
            if self._at == len(self._input) and not self.complete:
                return b""

    def _begin(self) -> bool:
        """Begin the next member. Returns False if no member follows yet."""
        left = len(self._input) - self._at
        if left < (2 if self._coding == "deflate" else 1):
            return False
        self._members += 1
        if self._members > (1 if self._coding == "deflate" else _MEMBERS_MAX):
            raise Undecodable(f"unexpected bytes after the {self._coding} data")
        if self._coding == "zstd":
            self._zstd = ZstdDecompressor(options=_ZSTD_LIMITS)
        elif self._coding == "gzip":
            self._zlib = zlib.decompressobj(16 + zlib.MAX_WBITS)
        else:
            # RFC 9110 defines `deflate` as zlib's format; some senders omit the zlib header.
            first, second = self._input[self._at], self._input[self._at + 1]
            wrapped = first & 15 == 8 and (first << 8 | second) % 31 == 0
            self._zlib = zlib.decompressobj(zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
        return True

    def _inflate(self, size: int) -> bytes:
        member = self._zlib
        assert member is not None
        data = self._input[self._at : self._at + _INPUT_MAX]
        piece = member.decompress(data, size)
        left = member.unused_data if member.eof else member.unconsumed_tail
        self._at += len(data) - len(left)
        if member.eof:
            self._zlib = None
        return piece

    def _unzstd(self, size: int) -> bytes:
        member = self._zstd
        assert member is not None
        data = b""
        if member.needs_input:
            data = self._input[self._at : self._at + _INPUT_MAX]
        piece = member.decompress(data, size)
        self._at += len(data)
        if member.eof:
            self._at -= len(member.unused_data)
            self._zstd = None
        return piece


class AnswerDecoder:
    """Decodes a copy of a response that the endpoint compressed unasked, within a bounded cost."""

    __slots__ = ("_decoder", "received", "size")

    def __init__(self, coding: str) -> None:
        """`coding` is a result of `normalized`."""
        self._decoder = ContentDecoder(coding)
        self.received = 0
        """Compressed bytes so far."""
        self.size = 0
        """Decoded bytes so far."""

    def read(self, piece: bytes) -> list[bytes]:
        """Decode a piece. The parts are cut after line ends, so that records stay whole.

        Raises:
            Undecodable: the data is invalid or expands too much.
        """
        self.received += len(piece)
        self._decoder.feed(piece)
        size_max = min(self.size + _READ_MAX, max(_RATIO_MAX * self.received, _RATIO_FREE))
        parts: list[bytes] = []
        while part := self._decoder.take(_SLICE):
            self.size += len(part)
            if self.size > size_max:
                raise Undecodable("the decoded data is too long")
            end = part.rfind(b"\n") + 1
            if end:
                parts.append(part[:end])
            if end < len(part):
                parts.append(part[end:])
        return parts

"""Decodes bodies that their sender has compressed: gzip, deflate and zstd, in slices.

A kilobyte of compressed data may become a megabyte. So a decoder hands out no more at a time than
it is asked for, refuses endless chains of tiny members, and a zstd window above the 8 MB that RFC
9659 allows. How much may come out in all is for the caller to say.
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
"""Members (gzip's word) or frames (zstd's), one after the other. Senders make one."""
_INPUT_MAX = 65536
"""Bytes that are decoded at once: zlib copies what it leaves unread."""
_ZSTD_LIMITS: dict[int, int] = {DecompressionParameter.window_log_max: 23}


_SLICE = 65536
_READ_MAX = 8 * 1024 * 1024
_RATIO_MAX = 200
_RATIO_FREE = 1_048_576
"""Bytes that one read of an answer may become (20 ms of work), and how many times as long, or up to
what length, a whole answer."""


class Undecodable(Exception):
    """The bytes are not what their coding says; the message says how."""


def normalized(value: str) -> str | None:
    """The coding that a Content-Encoding field names, if it can be decoded; "" for none."""
    name = value.strip().lower()
    if name in ("", "identity"):
        return ""
    if name == "x-gzip":  # RFC 9110, section 8.4.1.3
        return "gzip"
    return name if name in _DECODED else None


def coding_of(value: str | None) -> str:
    """The coding of a request's body, from its Content-Encoding field; "" for none.

    Raises:
        Failed: it cannot be decoded.
    """
    if value is None:
        return ""
    name = normalized(value)
    if name is None:
        message = (
            f"request bodies cannot be encoded as '{value[:40]}'; send it as it is, or as "
            "zstd, gzip or deflate"
        )
        raise Failed(Failure(Kind.ENCODING_UNSUPPORTED, message))
    return name


class ContentDecoder:
    """Decodes one body. After each `feed`, `take` until nothing comes."""

    __slots__ = ("_at", "_coding", "_input", "_members", "_zlib", "_zstd")

    def __init__(self, coding: str) -> None:
        """`coding` as `normalized` gives it."""
        self._coding = coding
        self._input = b""
        self._at = 0  # what of the input was decoded
        self._members = 0
        self._zlib: zlib._Decompress | None = None
        self._zstd: ZstdDecompressor | None = None

    @property
    def complete(self) -> bool:
        """Whether what has come so far ends where a member ends."""
        inside = self._zlib is not None or self._zstd is not None
        return self._members > 0 and not inside and self._at == len(self._input)

    def feed(self, data: bytes) -> None:
        """More of the body has come."""
        self._input = self._input[self._at :] + data
        self._at = 0

    def take(self, size: int) -> bytes:
        """The next bytes of the decoded body, up to `size`; none when more has to come first.

        Raises:
            Undecodable: they cannot be decoded.
        """
        while True:
            if self._zlib is None and self._zstd is None and not self._begin():
                return b""
            try:
                piece = self._unzstd(size) if self._zlib is None else self._inflate(size)
            except Exception as error:  # zlib.error, ZstdError
                raise Undecodable(f"it is not {self._coding}: {error}") from None
            if piece:
                return piece
            if self._at == len(self._input) and not self.complete:
                return b""

    def _begin(self) -> bool:
        """Begin the next member, if there is one."""
        left = len(self._input) - self._at
        if left < (2 if self._coding == "deflate" else 1):
            return False
        self._members += 1
        if self._members > (1 if self._coding == "deflate" else _MEMBERS_MAX):
            raise Undecodable(f"something follows the {self._coding} data")
        if self._coding == "zstd":
            self._zstd = ZstdDecompressor(options=_ZSTD_LIMITS)
        elif self._coding == "gzip":
            self._zlib = zlib.decompressobj(16 + zlib.MAX_WBITS)
        else:
            # RFC 9110 means zlib's format; some senders leave its header out.
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
    """Decodes a copy of an answer that was compressed unasked, as far as that costs little."""

    __slots__ = ("_decoder", "came", "size")

    def __init__(self, coding: str) -> None:
        """`coding` as `normalized` gives it."""
        self._decoder = ContentDecoder(coding)
        self.came = 0
        self.size = 0
        """Bytes of it, compressed and decoded."""

    def read(self, piece: bytes) -> list[bytes]:
        """What a piece of it says: cut after line ends, so that records stay whole.

        Raises:
            Undecodable: it is not what its coding says, or grows too much.
        """
        self.came += len(piece)
        self._decoder.feed(piece)
        most = min(self.size + _READ_MAX, max(_RATIO_MAX * self.came, _RATIO_FREE))
        found: list[bytes] = []
        while part := self._decoder.take(_SLICE):
            self.size += len(part)
            if self.size > most:
                raise Undecodable("it grows too much")
            end = part.rfind(b"\n") + 1
            if end:
                found.append(part[:end])
            if end < len(part):
                found.append(part[end:])
        return found

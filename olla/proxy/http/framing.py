"""Find the end of a message body: incremental scanners of HTTP/1.1 framing.

A relay forwards framing verbatim. It only needs to know where the body ends, its payload (for
HTTP/1.0 clients and for the last records), and how to inject an error record when the sender
disconnects in the middle. RFC 9112, sections 6 and 7.
"""

from typing import Protocol

__all__ = ["Chunked", "FramingError", "Length", "Scanner", "UntilClose", "chunk"]

_SIZE_LINE_MAX = 4096
_TRAILERS_MAX = 65536
_HEX = frozenset(b"0123456789abcdefABCDEF")
_SIZE_DIGITS_MAX = 15


class FramingError(Exception):
    """The bytes violate the framing.

    `passed` are the bytes before the fault, which can still be forwarded.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.passed = b""


class Scanner(Protocol):
    """Finds the end of a body."""

    done: bool
    """Whether the end of the body was found."""
    trailers: bytes
    """Trailer lines as received, each with its CRLF."""
    leftover: bytes
    """Bytes received after the end of the body."""

    def feed(self, data: bytes, payload: list[bytes]) -> bytes:
        """Scan the next bytes and append their payload to `payload`.

        Returns the bytes to forward with the framing in place: all of `data` except the end of the
        body.

        Raises:
            FramingError: the bytes violate the framing.
        """
        ...

    def eof(self) -> bool:
        """Called when the sender closes its side. Returns whether the body is complete."""
        ...

    def injected(self, record: bytes) -> bytes | None:
        """Return the bytes that add `record` to the payload forwarded so far.

        None if the framing allows no more payload.
        """
        ...


def chunk(payload: bytes) -> bytes:
    """Return one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


class Chunked:
    """Scans a body with `Transfer-Encoding: chunked`.

    The last chunk and the trailers are never forwarded: the relay writes the end of the body once
    it knows that the response is complete.
    """

    __slots__ = (
        "_crlf",
        "_fault",
        "_held",
        "_in_trailers",
        "_remaining",
        "done",
        "leftover",
        "trailers",
    )

    def __init__(self) -> None:
        self.done = False
        self.trailers = b""
        self.leftover = b""
        self._remaining = 0  # payload bytes still to come in the current chunk
        self._crlf = 0  # bytes still to come of the CRLF that ends it
        self._held = b""  # an unfinished size line, or the trailers so far
        self._in_trailers = False
        self._fault = 0  # length of the well-formed start of the data being scanned

    def feed(self, data: bytes, payload: list[bytes]) -> bytes:
        """See `Scanner.feed`."""
        if self._between and data[-1:] == b"\n":
            # Nearly every read is one whole chunk, which is forwarded unchanged.
            line_end = data.find(b"\r\n", 0, 18)
            if line_end > 0:
                digits = data[:line_end]
                start, end = line_end + 2, len(data) - 2
                if (
                    _HEX.issuperset(digits)
                    and end > start
                    and int(digits, 16) == end - start
                    and data[end] == 13
                ):
                    payload.append(data[start:end])
                    return data
        if self._held:
            data = self._held + data
            self._held = b""
        if self._in_trailers:
            self._scan_trailers(data, 0)
            return b""
        try:
            position = self._scan(data, payload)
        except FramingError as error:
            error.passed = data[: self._fault]
            raise
        return data if position == len(data) else data[:position]

    def _scan(self, data: bytes, payload: list[bytes]) -> int:
        """Scan `data` and return how many of its bytes are forwarded."""
        position = 0
        size = len(data)
        while position < size:
            self._fault = position
            if self._remaining:
                end = position + self._remaining
                if end > size:
                    payload.append(data[position:])
                    self._remaining = end - size
                    return size
                payload.append(data[position:end])
                position = self._fault = end
                self._remaining = 0
                self._crlf = 2
            if self._crlf:
                position = self._skip_crlf(data, position)
                continue
            line_end = data.find(b"\r\n", position, position + _SIZE_LINE_MAX)
            if line_end < 0:
                self._hold(data, position)
                return position
            self._remaining = _chunk_size(data, position, line_end)
            if not self._remaining:
                self._in_trailers = True
                self._scan_trailers(data, line_end + 2)
                return position
            position = line_end + 2
        return size

    @property
    def _between(self) -> bool:
        """Whether the next byte begins a chunk."""
        return not (self._held or self._remaining or self._crlf or self._in_trailers)

    def eof(self) -> bool:
        """See `Scanner.eof`: only the last chunk ends a chunked body."""
        return self.done

    def injected(self, record: bytes) -> bytes | None:
        """See `Scanner.injected`."""
        if self._remaining:
            if len(record) <= self._remaining:
                return record
            rest = record[self._remaining :]
            return record[: self._remaining] + b"\r\n" + chunk(rest)
        return b"\r\n"[2 - self._crlf :] + chunk(record)

    def _skip_crlf(self, data: bytes, position: int) -> int:
        expected = b"\r\n"[2 - self._crlf :]
        have = data[position : position + self._crlf]
        if not expected.startswith(have):
            raise FramingError("a chunk does not end after its announced size")
        self._crlf -= len(have)
        return position + len(have)

    def _hold(self, data: bytes, position: int) -> None:
        if len(data) - position >= _SIZE_LINE_MAX:
            raise FramingError("a chunk size line is too long")
        self._held = data[position:]
        if b"\n" in self._held:
            raise FramingError("a chunk size line ends in a bare LF")

    def _scan_trailers(self, data: bytes, position: int) -> None:
        if data.startswith(b"\r\n", position):
            end = position
        else:
            found = data.find(b"\r\n\r\n", position)
            if found < 0:
                self._held = data[position:]
                if len(self._held) > _TRAILERS_MAX:
                    raise FramingError("the trailers are too long")
                return
            end = found + 2
        self.trailers = data[position:end]
        self.leftover = data[end + 2 :]
        self.done = True


class Length:
    """Scans a body with a `Content-Length`."""

    __slots__ = ("_remaining", "done", "leftover", "trailers")

    def __init__(self, length: int) -> None:
        self._remaining = length
        self.done = length == 0
        self.trailers = b""
        self.leftover = b""

    def feed(self, data: bytes, payload: list[bytes]) -> bytes:
        """See `Scanner.feed`."""
        size = len(data)
        if size > self._remaining:
            self.leftover = data[self._remaining :]
            data = data[: self._remaining]
            size = self._remaining
        self._remaining -= size
        self.done = self._remaining == 0
        if size:
            payload.append(data)
        return data

    def eof(self) -> bool:
        """See `Scanner.eof`."""
        return self.done

    def injected(self, record: bytes) -> bytes | None:
        """Return None: the announced length cannot be exceeded."""
        return None


class UntilClose:
    """Scans a body that ends when the connection is closed."""

    __slots__ = ("done", "leftover", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.trailers = b""
        self.leftover = b""

    def feed(self, data: bytes, payload: list[bytes]) -> bytes:
        """See `Scanner.feed`."""
        payload.append(data)
        return data

    def eof(self) -> bool:
        """See `Scanner.eof`."""
        self.done = True
        return True

    def injected(self, record: bytes) -> bytes | None:
        """See `Scanner.injected`."""
        return record


def _chunk_size(data: bytes, start: int, end: int) -> int:
    semicolon = data.find(b";", start, end)
    if semicolon >= 0 and (data.find(b"\n", semicolon, end) >= 0 or b"\r" in data[semicolon:end]):
        raise FramingError("a chunk size line contains a bare CR or LF")
    digits = data[start : end if semicolon < 0 else semicolon].rstrip(b" \t")
    if not digits or len(digits) > _SIZE_DIGITS_MAX or not _HEX.issuperset(digits):
        raise FramingError(f"{digits[:20]!r} is not a valid chunk size")
    return int(digits, 16)

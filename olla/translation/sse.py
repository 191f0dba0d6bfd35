"""Read server-sent events across any cuts, and tolerate common mistakes of servers.

The format is the HTML standard's, section 9.2.6 (https://html.spec.whatwg.org/multipage/#sse).
Servers differ from its examples: no blank after the colon, CRLF, comments as signs of life, several
`data` lines, records of megabytes, and no blank line at the end.
"""

import msgspec

__all__ = ["RECORD_MAX", "ServerEvent", "SseReader", "TooLong"]

RECORD_MAX = 16 * 1024 * 1024
"""Bytes of one record. An image in an answer takes some megabytes; nothing takes more."""


class TooLong(Exception):
    """A record is longer than `RECORD_MAX`."""


class ServerEvent(msgspec.Struct, frozen=True):
    """One record: `data` with its lines joined by line feeds, `name` empty for unnamed ones."""

    data: bytes
    name: bytes = b""


class SseReader:
    """Cuts a stream into its records."""

    __slots__ = ("_data", "_data_size", "_line", "_line_size", "_name")

    def __init__(self) -> None:
        self._line: list[bytes] = []
        """The pieces of the unfinished line."""
        self._line_size = 0
        self._data: list[bytes] = []
        """The data lines of the unfinished record."""
        self._data_size = 0
        self._name = b""

    def feed(self, piece: bytes) -> list[ServerEvent]:
        """The records that are complete with this piece.

        Raises:
            TooLong: the unfinished record is too long.
        """
        first, *others = piece.split(b"\n")
        self._line.append(first)
        self._line_size += len(first)
        found: list[ServerEvent] = []
        for part in others:
            self._take(b"".join(self._line), found)
            self._line = [part]
            self._line_size = len(part)
        if self._line_size + self._data_size > RECORD_MAX:
            raise TooLong
        return found

    def end(self) -> list[ServerEvent]:
        """The record that the end of the stream completes, if any: some servers omit the blank
        line after the last one."""
        found: list[ServerEvent] = []
        self._take(b"".join(self._line), found)
        self._take(b"", found)
        self._line = []
        self._line_size = 0
        return found

    def _take(self, line: bytes, found: list[ServerEvent]) -> None:
        """Take one line, without its line feed."""
        line = line.removesuffix(b"\r")
        if not line:
            if self._data:
                found.append(ServerEvent(b"\n".join(self._data), self._name))
                self._data = []
                self._data_size = 0
            self._name = b""
            return
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._data_size += len(value) + 1
        elif field == b"event":
            self._name = value

"""The end of an answer's payload, kept while it passes.

Whether an answer is complete, and its token counts, stand in its last records. Pieces of payload
are grouped into runs that end with a line end, and the last few runs are kept: a stream's final
records, or the whole of an answer without line ends. Bounded. Line ends are counted on the way
(60 ns a piece), so that the tokens of a stream without counts can be estimated.
"""

__all__ = ["Tail"]

_RUNS = 6
"""Enough for an OpenAI stream's finish, usage and [DONE] records, arriving one by one."""
_BYTES_MAX = 2 * 1024 * 1024
"""A final record may hold the whole context as token numbers: some hundred kilobytes."""
START_BYTES_MAX = 16_384
"""Bytes of a stream's start that are kept where they are wanted: Anthropic's `message_start` takes
some 500."""


class Tail:
    """The last runs of payload, the number of its lines, and its start where that is wanted."""

    __slots__ = ("_open", "_runs", "_size", "_start", "_start_left", "lines", "overflowed")

    def __init__(self, *, with_start: bool = False) -> None:
        self._start: list[bytes] = []
        self._start_left = START_BYTES_MAX if with_start else 0
        self.lines = 0
        """Line ends in all of the payload."""
        self._runs: list[bytes | list[bytes]] = []
        self._open = False
        self._size = 0
        self.overflowed = False
        """The last run grew over its bound: what is kept is not the whole of it."""

    def add(self, piece: bytes) -> None:
        """Take the next piece of payload."""
        runs = self._runs
        self.lines += piece.count(b"\n")
        if self._start_left > 0:
            self._start.append(piece[: self._start_left])
            self._start_left -= len(piece)
        if self._open:
            self._add_to_last(piece)
        else:
            runs.append(piece)
            if len(runs) > _RUNS:
                del runs[0]
            self._size = len(piece)
            self.overflowed = False
        self._open = piece[-1] != 10

    def _add_to_last(self, piece: bytes) -> None:
        last = self._runs[-1]
        if isinstance(last, bytes):
            self._runs[-1] = last = [last]
            self._size = len(last[0])
        self._size += len(piece)
        if self._size > _BYTES_MAX:
            self.overflowed = True
            last.clear()
            self._size = 0
        last.append(piece)

    @property
    def mid_record(self) -> bool:
        """Whether the payload so far stops in the middle of a line."""
        return self._open

    def start(self) -> bytes:
        """The first bytes of the payload, where they are wanted."""
        return b"".join(self._start)

    def value(self) -> bytes:
        """What is kept, as one piece."""
        pieces = [run if isinstance(run, bytes) else b"".join(run) for run in self._runs]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

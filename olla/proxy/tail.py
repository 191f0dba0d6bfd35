"""The end of an answer's payload, kept while it passes.

Whether an answer is complete, and its token counts, stand in its last records. Pieces of payload
are grouped into runs that end with a line end, and the last few runs are kept: a stream's final
records, or the whole of an answer without line ends. Bounded.
"""

__all__ = ["Tail"]

_RUNS = 6
"""Enough for an OpenAI stream's finish, usage and [DONE] records, arriving one by one."""
_BYTES_MAX = 2 * 1024 * 1024
"""A final record may hold the whole context as token numbers: some hundred kilobytes."""


class Tail:
    """The last runs of payload."""

    __slots__ = ("_open", "_runs", "_size", "overflowed")

    def __init__(self) -> None:
        self._runs: list[bytes | list[bytes]] = []
        self._open = False
        self._size = 0
        self.overflowed = False
        """The last run grew over its bound: what is kept is not the whole of it."""

    def add(self, piece: bytes) -> None:
        """Take the next piece of payload."""
        runs = self._runs
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

    def value(self) -> bytes:
        """What is kept, as one piece."""
        pieces = [run if isinstance(run, bytes) else b"".join(run) for run in self._runs]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

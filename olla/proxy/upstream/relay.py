"""From the endpoint's connection to the client's: bytes, as they come.

Takes over a connection once something of its answer is to go to the client. The first byte that
does is the point of no return: what is found wrong before it is no failure of the relay, but one
of the try. Passes framing on verbatim, lets the
endpoint wait when the client is slow, keeps the last records, and writes the end itself: the
terminating chunk only when the dialect has seen the answer's own end, else the dialect's in-band
error and nothing after it. Does not choose, does not retry.
"""

from collections.abc import Callable
from typing import Final, Protocol

from olla.dialects.dialect import Dialect, Ending, Operation, Summary
from olla.failures import Failure, Kind
from olla.proxy.http.content_coding import AnswerDecoder, Undecodable
from olla.proxy.http.framing import chunk
from olla.proxy.http.message_fields import passed_trailers
from olla.proxy.http.response_head import ResponseHead
from olla.proxy.upstream.pool import UpstreamConnection

__all__ = ["Downstream", "Relay", "Tail"]

_COMPLETE: Final = Ending.COMPLETE
_KEPT_MAX = 1_048_576
"""Bytes of an answer that are kept, where the operator wants them."""


class Downstream(Protocol):
    """The client's connection, while one answer is written to it."""

    minor: int
    """The client's HTTP/1 version: 1 or 0."""
    persistent: bool
    """Whether the connection stays open after this answer."""
    wants_trailers: bool
    """The client said `TE: trailers`."""

    @property
    def closing(self) -> bool:
        """The connection is closed or closing: nothing written arrives."""
        ...

    @property
    def paused(self) -> bool:
        """The client is slow: what was written waits in memory."""
        ...

    def write(self, data: bytes) -> None:
        """Send bytes; nothing happens on a closing connection."""
        ...

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Call back once the client has caught up."""
        ...

    def close_delimited(self) -> None:
        """The answer that begins now ends with the connection. Until it is `complete`, whatever
        closes the connection resets it: an end would read as that of the answer."""
        ...

    def complete(self) -> None:
        """An answer that is `close_delimited` is whole."""
        ...

    def answered(self) -> None:
        """Nothing more will be written of this answer."""
        ...


class Relay:
    """Relays one answer. A `Receiver`."""

    __slots__ = (
        "_answer",
        "_begin",
        "_chunked",
        "_coded",
        "_connection",
        "_decoder",
        "_dialect",
        "_downstream",
        "_endpoint",
        "_first",
        "_framed",
        "_kept",
        "_kept_size",
        "_operation",
        "_sized",
        "_stream",
        "_tail",
        "_trailer",
        "_unfit",
        "_until_close",
        "bytes_out",
        "failure",
        "finished",
        "on_end",
        "summary",
    )

    def __init__(
        self,
        connection: UpstreamConnection,
        downstream: Downstream,
        dialect: Dialect,
        operation: Operation,
        head: ResponseHead,
        begin: Callable[[ResponseHead], bytes],
        *,
        endpoint: str,
        trailer: Callable[[], bytes] | None,
        begun: bool = False,
        keep: bool = False,
    ) -> None:
        """`begin` is called once, just before the first byte goes to the client, for the head that
        it gets; `begun` says that the head of a stream has gone to the client already, `keep` that
        what is passed on is wanted afterwards."""
        self._connection = connection
        self._downstream = downstream
        self._dialect = dialect
        self._operation = operation
        self._begin: Callable[[ResponseHead], bytes] | None = begin
        self._answer = head
        self._first = b""
        """The whole of a body that came with its head, until it is known to be good."""
        self._trailer = trailer
        self._endpoint = endpoint
        self.on_end: Callable[[], None] | None = None
        """Called once, when nothing more will be written."""
        self._chunked = head.chunked and not head.bodiless and downstream.minor == 1
        self._framed = begun and not self._chunked and downstream.minor == 1
        """The client was promised chunks, and none come."""
        self._coded = head.coding != ""
        """It is compressed: nothing can be said within it."""
        self._unfit = begun and (not head.streams or self._coded)
        delimited = self._chunked or (not begun and (head.bodiless or head.length is not None))
        self._until_close = not delimited and not self._framed
        self._stream = head.streams or begun
        self._sized = head.length is not None
        self._tail = (
            Tail(with_start=self._stream and dialect.counts_at_start)
            if head.readable and head.status == 200 and head.coding is not None
            else None
        )
        self._decoder = (
            AnswerDecoder(head.coding) if head.coding and self._tail is not None else None
        )
        self._kept: list[bytes] | None = [] if keep else None
        self._kept_size = 0
        self.bytes_out = 0
        """Body bytes written to the client, framing included."""
        self.failure: Failure | None = None
        """What broke the answer."""
        self.summary: Summary | None = None
        """What the answer's end told."""
        self.finished = False

    @property
    def begun(self) -> bool:
        """Whether anything of the answer has gone to the client."""
        return self._begin is None

    @property
    def streams(self) -> bool:
        """Whether the answer comes record by record."""
        return self._stream

    def last_records(self) -> bytes:
        """The end of what has come, without framing."""
        return b"" if self._tail is None or self._tail.overflowed else self._tail.value()

    @property
    def lines(self) -> int:
        """Line ends in what has come, without framing."""
        return 0 if self._tail is None else self._tail.lines

    @property
    def read(self) -> bool:
        """Whether the answer could be read while it passed."""
        return self._tail is not None

    @property
    def size(self) -> int:
        """Bytes of the answer, decoded where it is compressed and could be read."""
        return self.bytes_out if self._decoder is None else self._decoder.size

    def kept(self) -> str:
        """What was passed on, as far as it was to be kept."""
        return b"".join(self._kept or ())[:_KEPT_MAX].decode("utf-8", "replace")

    # --- Receiver ---------------------------------------------------------------------------

    def head(self, head: ResponseHead, more: bool) -> None:
        """Send the head, with the first of the body where that is here already."""
        if self._unfit:
            what = "a compressed stream" if self._coded else "something else than a stream"
            message = f"endpoint '{self._endpoint}' answered with {what}"
            self.stop(Failure(Kind.BAD_HEAD, message, self._endpoint))
        elif not more:
            self._write(b"")

    def body(self, raw: bytes, payload: list[bytes], last: bool) -> None:
        """Pass a piece of the body on; one that is the whole body waits for the verdict."""
        said = payload if self._decoder is None else self._decoded(payload)
        if self._tail is not None:
            for piece in said:
                self._tail.add(piece)
        if self._kept is not None and self._kept_size < _KEPT_MAX:
            self._kept += said
            self._kept_size += sum(map(len, said))
        data = raw if self._chunked else b"".join(payload)
        if self._framed and data:
            data = chunk(data)
        if last and self._begin is not None:
            self._first = data
            return
        self._write(data)
        if self._downstream.paused:
            self._connection.pause_reading()
            self._downstream.when_drained(self._connection.resume_reading)

    def _decoded(self, payload: list[bytes]) -> list[bytes]:
        """What a piece of a compressed answer says. Once that cannot be read, it goes on unread."""
        decoder = self._decoder
        assert decoder is not None
        said: list[bytes] = []
        try:
            for piece in payload:
                said += decoder.read(piece)
        except Undecodable:
            self._decoder = self._tail = None
        return said

    def end(self, trailers: bytes) -> None:
        """The framing is complete: see whether the answer is, and end it accordingly."""
        tail = self._tail
        if tail is not None and not tail.overflowed:
            self.summary = self._dialect.summary(
                self._operation, self._stream, tail.value(), tail.start()
            )
            if self._stream and self.summary.ending is not _COMPLETE:
                self._cut_short(self.summary.ending)
                return
            last = tail.value().rstrip()
            if not self._stream and last and not last.endswith((b"}", b"]")):
                self._half_a_text()
                return
        last = b"0\r\n\r\n" if self._framed else b""
        if self._chunked:
            own = self._trailer() if self._trailer is not None else b""
            last = b"0\r\n" + (passed_trailers(trailers) if trailers else b"") + own + b"\r\n"
        self._write(last)
        if self._until_close:
            self._downstream.complete()
        self._finish()

    def broken(self, kind: Kind, message: str, raw: bytes, payload: list[bytes]) -> None:
        """The endpoint broke off: say so within the answer, and close without an end."""
        if raw or payload:
            self.body(raw, payload, False)
        self.fail(Failure(kind, f"endpoint '{self._endpoint}' {message}", self._endpoint))

    # --- the end ----------------------------------------------------------------------------

    def fail(self, failure: Failure) -> None:
        """End the answer with an error where its format allows, and close the connection."""
        if self.finished:
            return
        self.failure = failure
        if self._begin is not None:
            self._finish()
            return
        self._downstream.persistent = False
        if self._stream and not self._coded:
            mid_record = self._tail is not None and self._tail.mid_record
            record = self._dialect.in_band_error(failure, mid_record=mid_record)
            scanner = self._connection.scanner
            if self._chunked and scanner is not None:
                record = scanner.injected(record) or b""
            elif self._framed:
                record = chunk(record)
            self._write(record)
        else:
            self._write(b"")
        self._finish()

    def stop(self, failure: Failure) -> None:
        """Hang up on the endpoint, and end the answer with an error."""
        self._connection.abort()
        self.fail(failure)

    def _half_a_text(self) -> None:
        """Half a JSON text came, ended as if it were whole."""
        if not self._sized:
            self._cut_short(Ending.INCOMPLETE)
            return
        # Its length has been reached, so the client has all of it and may ask again already.
        message = f"endpoint '{self._endpoint}' sent what is not a whole JSON text"
        self.failure = Failure(Kind.STREAM_INCOMPLETE, message, self._endpoint)
        self._finish()

    def _cut_short(self, ending: Ending) -> None:
        if ending is Ending.ERROR:
            # The endpoint has said so itself; a clean end after it would pass for success.
            self.failure = Failure(
                Kind.STREAM_INCOMPLETE,
                f"endpoint '{self._endpoint}' ended its answer with an error of its own",
                self._endpoint,
            )
            self._downstream.persistent = False
            self._write(b"")
            self._finish()
            return
        self.fail(
            Failure(
                Kind.STREAM_INCOMPLETE,
                f"endpoint '{self._endpoint}' ended its answer before it was complete; try again",
                self._endpoint,
            )
        )

    def _write(self, data: bytes) -> None:
        begin = self._begin
        if begin is not None:
            self._begin = None
            data = self._first + data
            self._first = b""
            self.bytes_out += len(data)
            data = begin(self._answer) + data
            if self._until_close:
                self._downstream.close_delimited()
        else:
            self.bytes_out += len(data)
        if data:
            self._downstream.write(data)

    def _finish(self) -> None:
        if not self.finished:
            self.finished = True
            # Whoever is told holds the relay: letting go of it here leaves no cycle behind.
            on_end, self.on_end = self.on_end, None
            if on_end is not None:
                on_end()


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

"""Relay the bytes of a response from the endpoint's connection to the client's.

The relay takes over when the response is ready to go to the client. A fault that is found before
the first byte goes out fails the attempt, which may be retried; a later one fails the response.

Framing is forwarded verbatim. Reading from the endpoint pauses while the client is slow. The last
records are kept to find the end of the response. The relay writes the end itself: the terminating
chunk if the dialect recognizes the response as complete, else the dialect's in-band error and
nothing after it. It does not choose endpoints and does not retry.
"""

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from olla.dialects.dialect import Ending, Summary
from olla.dialects.paths import Target
from olla.failures import Failure, Kind
from olla.proxy.http.content_coding import AnswerDecoder, Undecodable
from olla.proxy.http.framing import chunk
from olla.proxy.http.message_fields import passed_trailers
from olla.proxy.http.response_head import ResponseHead
from olla.proxy.upstream.pool import UpstreamConnection

__all__ = ["Downstream", "Relay", "RelayOptions", "Tail", "Translator"]

_COMPLETE: Final = Ending.COMPLETE
_CONTENT_MAX = 1_048_576
"""Bytes of a response that are recorded if the operator enables it."""


class Downstream(Protocol):
    """The client's connection while one response is written to it."""

    minor: int
    """The client's HTTP/1 version: 1 or 0."""
    persistent: bool
    """Whether the connection stays open after this response."""
    wants_trailers: bool
    """Whether the client sent `TE: trailers`."""

    @property
    def closing(self) -> bool:
        """Whether the connection is closed or closing, so that written bytes are lost."""
        ...

    @property
    def paused(self) -> bool:
        """Whether the client is slow, so that written bytes are buffered in memory."""
        ...

    def write(self, data: bytes) -> None:
        """Send bytes. Does nothing on a closing connection."""
        ...

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Call `callback` once the write buffer has drained."""
        ...

    def close_delimited(self) -> None:
        """Mark the response as delimited by the end of the connection.

        Until `complete` is called, closing the connection resets it: a normal close would look
        like the end of the response.
        """
        ...

    def complete(self) -> None:
        """Mark a close-delimited response as complete."""
        ...

    def answered(self) -> None:
        """Called when nothing more will be written of this response."""
        ...


class Translator(Protocol):
    """Translates a response for a client of another dialect."""

    head: ResponseHead
    """The head for the client."""
    streams: bool
    """Whether the client gets records as they come."""
    failure: str | None
    """Why the response cannot become complete."""

    def feed(self, payload: list[bytes]) -> bytes:
        """Translate payload; returns bytes for the client, without framing."""
        ...

    def end(self) -> bytes:
        """Translate the end of the payload."""
        ...

    def summary(self) -> Summary:
        """Token counts and durations, as far as the endpoint reported them."""
        ...


class RelayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of a relay.

    `endpoint`: its name, for error messages; `trailer`: returns trailer lines to add, None for
    none; `begun`: the head of a stream has already been sent to the client; `record_content`: keep
    the content for the record; `translator`: translates the response.
    """

    endpoint: str
    trailer: Callable[[], bytes] | None
    begun: bool = False
    record_content: bool = False
    translator: Translator | None = None


class Relay:
    """Relays one response. A `Receiver`."""

    __slots__ = (
        "_begin",
        "_chunked",
        "_compressed",
        "_connection",
        "_content",
        "_content_size",
        "_decoder",
        "_dialect",
        "_downstream",
        "_endpoint",
        "_first",
        "_framed",
        "_head",
        "_mismatched",
        "_operation",
        "_sized",
        "_stream",
        "_tail",
        "_trailer",
        "_translator",
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
        target: Target,
        head: ResponseHead,
        begin: Callable[[ResponseHead], bytes],
        options: RelayOptions,
    ) -> None:
        """`begin` is called once, just before the first byte goes to the client, and returns the
        head for the client."""
        begun = options.begun
        dialect = target.dialect
        self._connection = connection
        self._downstream = downstream
        self._dialect = dialect
        self._operation = target.operation
        self._begin: Callable[[ResponseHead], bytes] | None = begin
        self._head = head
        self._first = b""
        """A whole body that arrived with its head, until it is validated."""
        self._trailer = options.trailer
        self._endpoint = options.endpoint
        self.on_end: Callable[[], None] | None = None
        """Called once, when nothing more will be written."""
        self._chunked = head.chunked and not head.bodiless and downstream.minor == 1
        self._framed = begun and not self._chunked and downstream.minor == 1
        """The client expects chunks, but the endpoint sends none."""
        self._compressed = head.coding != ""
        """The body is compressed, so no error can be injected."""
        self._mismatched = begun and (not head.streams or self._compressed)
        delimited = self._chunked or (not begun and (head.bodiless or head.length is not None))
        self._until_close = not delimited and not self._framed
        self._stream = head.streams or begun
        self._sized = head.length is not None
        self._translator = translator = options.translator
        if translator is not None:
            self._chunked = self._mismatched = self._sized = False
            self._framed = downstream.minor == 1
            self._until_close = not self._framed
            self._stream = translator.streams
        self._tail = (
            Tail(with_start=self._stream and dialect.counts_at_start)
            if translator is None
            and head.readable
            and head.status == 200
            and head.coding is not None
            else None
        )
        self._decoder = (
            AnswerDecoder(head.coding) if head.coding and self._tail is not None else None
        )
        self._content: list[bytes] | None = [] if options.record_content else None
        self._content_size = 0
        self.bytes_out = 0
        """Body bytes written to the client, including framing."""
        self.failure: Failure | None = None
        """The failure of the response; None if it succeeded."""
        self.summary: Summary | None = None
        """The summary parsed from the response's end."""
        self.finished = False

    @property
    def begun(self) -> bool:
        """Whether any byte of the response has gone to the client."""
        return self._begin is None

    @property
    def streams(self) -> bool:
        """Whether the response is a stream of records."""
        return self._stream

    def last_records(self) -> bytes:
        """Return the end of the payload received so far; empty if unknown."""
        return b"" if self._tail is None or self._tail.overflowed else self._tail.value()

    @property
    def lines(self) -> int:
        """The number of line ends in the payload received so far."""
        return 0 if self._tail is None else self._tail.lines

    @property
    def readable(self) -> bool:
        """Whether the payload can be parsed while it is relayed."""
        return self._tail is not None

    @property
    def size(self) -> int:
        """Bytes of the response, after decompression if it can be decoded."""
        return self.bytes_out if self._decoder is None else self._decoder.size

    def content(self) -> str:
        """Return the recorded content of the response."""
        return b"".join(self._content or ())[:_CONTENT_MAX].decode("utf-8", "replace")

    # --- Receiver ---------------------------------------------------------------------------

    def head(self, head: ResponseHead, more: bool) -> None:
        """Send the head, unless body bytes follow at once: then it is sent with them."""
        if self._mismatched:
            what = "a compressed stream" if self._compressed else "a response that is not a stream"
            message = f"endpoint '{self._endpoint}' sent {what}"
            self.stop(Failure(Kind.BAD_HEAD, message, self._endpoint))
        elif not more and self._translator is None:
            self._write(b"")

    def body(self, raw: bytes, payload: list[bytes], last: bool) -> None:
        """Forward a piece of the body. A piece that is the whole body is held until validated."""
        if self._translator is not None:
            self._translate(self._translator.feed(payload), last=last)
            return
        decoded = payload if self._decoder is None else self._decoded(payload)
        if self._tail is not None:
            for piece in decoded:
                self._tail.add(piece)
        if self._content is not None and self._content_size < _CONTENT_MAX:
            self._content += decoded
            self._content_size += sum(map(len, decoded))
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
        """Decompress a piece. After an error, the rest is relayed without being parsed."""
        decoder = self._decoder
        assert decoder is not None
        decoded: list[bytes] = []
        try:
            for piece in payload:
                decoded += decoder.read(piece)
        except Undecodable:
            self._decoder = self._tail = None
        return decoded

    def end(self, trailers: bytes) -> None:
        """End a response with complete framing, after checking that its content is complete."""
        if self._translator is not None:
            self._end_translated(self._translator)
            return
        tail = self._tail
        if tail is not None and not tail.overflowed:
            self.summary = self._dialect.summary(
                self._operation, self._stream, tail.value(), tail.start()
            )
            if self._stream and self.summary.ending is not _COMPLETE:
                self._end_incomplete(self.summary.ending)
                return
            last = tail.value().rstrip()
            if not self._stream and last and not last.endswith((b"}", b"]")):
                self._end_incomplete_json()
                return
        last = b"0\r\n\r\n" if self._framed else b""
        if self._chunked:
            added = self._trailer() if self._trailer is not None else b""
            last = b"0\r\n" + (passed_trailers(trailers) if trailers else b"") + added + b"\r\n"
        self._write(last)
        if self._until_close:
            self._downstream.complete()
        self._finish()

    def _translate(self, data: bytes, *, last: bool) -> None:
        """Send translated bytes, or end the answer if it cannot be translated any further."""
        translator = self._translator
        assert translator is not None
        if translator.failure is not None:
            self._connection.abort()
            self._fail_translated(translator.failure, data)
            return
        if self._content is not None and self._content_size < _CONTENT_MAX:
            self._content.append(data)
            self._content_size += len(data)
        if not data:
            return
        if self._framed:
            data = chunk(data)
        if last and self._begin is not None:
            self._first = data
            return
        self._write(data)
        if self._downstream.paused:
            self._connection.pause_reading()
            self._downstream.when_drained(self._connection.resume_reading)

    def _end_translated(self, translator: Translator) -> None:
        data = translator.end()
        if translator.failure is not None:
            self._fail_translated(translator.failure, data)
            return
        self.summary = translator.summary()
        if self._framed:
            own = self._trailer() if self._trailer is not None else b""
            data = (chunk(data) if data else b"") + b"0\r\n" + own + b"\r\n"
        self._write(data)
        if self._until_close:
            self._downstream.complete()
        self._finish()

    def _fail_translated(self, message: str, data: bytes) -> None:
        """`data` says so to the client, if its answer has begun."""
        if self.finished:
            return
        if self._begin is not None:
            self._first = b""
            self.failure = Failure(Kind.BAD_ANSWER, message, self._endpoint)
            self._finish()
            return
        self.failure = Failure(Kind.STREAM_INCOMPLETE, message, self._endpoint)
        self._downstream.persistent = False
        if data:
            self._write(chunk(data) if self._framed else data)
        self._finish()

    def broken(self, kind: Kind, message: str, raw: bytes, payload: list[bytes]) -> None:
        """End a broken response with an in-band error, without its regular end."""
        if raw or payload:
            self.body(raw, payload, False)
        self.fail(Failure(kind, f"endpoint '{self._endpoint}' {message}", self._endpoint))

    # --- the end ----------------------------------------------------------------------------

    def fail(self, failure: Failure) -> None:
        """End the response, with an in-band error if its format allows one, and close the
        connection."""
        if self.finished:
            return
        self.failure = failure
        if self._begin is not None:
            self._finish()
            return
        self._downstream.persistent = False
        if self._stream and not self._compressed:
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
        """Close the connection to the endpoint, and end the response with an error."""
        self._connection.abort()
        self.fail(failure)

    def _end_incomplete_json(self) -> None:
        """End a response with incomplete JSON."""
        if not self._sized:
            self._end_incomplete(Ending.INCOMPLETE)
            return
        # The client has received the full Content-Length and may have sent the next request.
        message = f"endpoint '{self._endpoint}' sent incomplete JSON"
        self.failure = Failure(Kind.STREAM_INCOMPLETE, message, self._endpoint)
        self._finish()

    def _end_incomplete(self, ending: Ending) -> None:
        if ending is Ending.ERROR:
            # The endpoint sent an error record. A regular end after it would look like success.
            self.failure = Failure(
                Kind.STREAM_INCOMPLETE,
                f"endpoint '{self._endpoint}' ended its response with an error",
                self._endpoint,
            )
            self._downstream.persistent = False
            self._write(b"")
            self._finish()
            return
        self.fail(
            Failure(
                Kind.STREAM_INCOMPLETE,
                f"endpoint '{self._endpoint}' sent an incomplete response; try again",
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
            data = begin(self._head) + data
            if self._until_close:
                self._downstream.close_delimited()
        else:
            self.bytes_out += len(data)
        if data:
            self._downstream.write(data)

    def _finish(self) -> None:
        if not self.finished:
            self.finished = True
            # The callback's owner holds the relay: dropping it here avoids a reference cycle.
            on_end, self.on_end = self.on_end, None
            if on_end is not None:
                on_end()


_RUNS = 6
"""Enough for an OpenAI stream's finish, usage and [DONE] records, arriving one by one."""
_BYTES_MAX = 2 * 1024 * 1024
"""Bytes. A final record may hold the whole context as token numbers: some hundred kilobytes."""
START_BYTES_MAX = 16_384
"""Bytes kept of a stream's start if requested: Anthropic's `message_start` takes about 500."""


class Tail:
    """Keeps the last runs of a payload, the number of its lines, and its start if requested."""

    __slots__ = ("_open", "_runs", "_size", "_start", "_start_left", "lines", "overflowed")

    def __init__(self, *, with_start: bool = False) -> None:
        self._start: list[bytes] = []
        self._start_left = START_BYTES_MAX if with_start else 0
        self.lines = 0
        """The number of line ends in the whole payload."""
        self._runs: list[bytes | list[bytes]] = []
        self._open = False
        self._size = 0
        self.overflowed = False
        """Whether the last run exceeded `_BYTES_MAX`, so that only its end is kept."""

    def add(self, piece: bytes) -> None:
        """Add the next piece of the payload."""
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
        """Whether the payload so far ends in the middle of a line."""
        return self._open

    def start(self) -> bytes:
        """Return the start of the payload; empty if it was not requested."""
        return b"".join(self._start)

    def value(self) -> bytes:
        """Return the kept runs, joined."""
        pieces = [run if isinstance(run, bytes) else b"".join(run) for run in self._runs]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

"""What happened: one `RequestRecord` per request, and who wants to know.

The proxy fills a record while the request moves and hands it to the sinks once, at the end.
Metrics, logs and (later) usage are folds over records; the proxy knows none of them.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec

from olla.failures import Failure

__all__ = ["AttemptRecord", "RequestRecord", "Sink", "fan_out"]


class AttemptRecord(msgspec.Struct):
    """One try against one endpoint. Times are monotonic seconds."""

    endpoint: str
    reason: str
    started: float
    first_byte: float | None = None
    ended: float | None = None
    status: int | None = None
    failure: Failure | None = None


class RequestRecord(msgspec.Struct):
    """One request with its answer.

    Times are monotonic seconds (`started_wall` is Unix time); `bytes_in` and `bytes_out` count
    body bytes as received from the client and as sent to it, framing included in the latter;
    token counts are what the endpoint reported, None where it reported nothing. `ended` is set
    when the last byte was handed to the client's connection or the request failed.
    `queue_seconds` is how long it waited in olla, None when it did not; `predicted` how many
    seconds to the first byte were expected when it came, None where routing did not ask.
    `rewritten` says what olla has changed in the request's body, where it was told to;
    `inference` says that it occupies a slot of a model, `load_options` how it wanted that loaded.
    """

    id: str
    method: str
    path: str
    client: str
    started: float
    started_wall: float
    dialect: str = ""
    operation: str = ""
    model: str | None = None
    streaming: bool = False
    endpoint: str | None = None
    endpoint_type: str | None = None
    strategy: str = ""
    decision: str = ""
    reason: str = ""
    status: int = 0
    first_byte: float | None = None
    ended: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    load_seconds: float | None = None
    queue_seconds: float | None = None
    predicted: float | None = None
    rewritten: str | None = None
    inference: bool = False
    load_options: tuple[tuple[str, float], ...] = ()
    attempts: list[AttemptRecord] = msgspec.field(default_factory=list)
    failure: Failure | None = None


class Sink(Protocol):
    """Something that wants to know what happened."""

    def __call__(self, record: RequestRecord) -> None:
        """Take a finished record. Must not block, and must not raise."""
        ...


def fan_out(sinks: list[Sink], on_error: Callable[[Sink, Exception], None]) -> Sink:
    """One sink that hands each record to all of `sinks`.

    A sink that raises does not keep the others from the record: `on_error` is told instead.
    """

    def sink(record: RequestRecord) -> None:
        for each in sinks:
            try:
                each(record)
            except Exception as error:
                on_error(each, error)

    return sink

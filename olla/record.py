"""What happened: one `RequestRecord` per request, and who wants to know.

The proxy fills a record while the request moves and hands it to the sinks once, at the end.
Metrics, logs and (later) usage are folds over records; the proxy knows none of them.
"""

from collections.abc import Callable
from typing import Protocol

from olla.failures import Failure

__all__ = ["AttemptRecord", "RequestRecord", "Sink", "fan_out"]


_PATH_CHARACTERS_MAX = 1024
"""What is kept of a path. Thousands of records may wait for the log and the store, and a client
chooses how long its path is."""


class AttemptRecord:
    """One try against one endpoint. Times are monotonic seconds."""

    __slots__ = ("ended", "endpoint", "failure", "first_byte", "reason", "started", "status")

    def __init__(
        self,
        endpoint: str,
        reason: str,
        started: float,
        first_byte: float | None = None,
        ended: float | None = None,
        status: int | None = None,
        failure: Failure | None = None,
    ) -> None:
        self.endpoint = endpoint
        self.reason = reason
        self.started = started
        self.first_byte = first_byte
        self.ended = ended
        self.status = status
        self.failure = failure


class RequestRecord:
    """One request with its answer.

    `path` is without the query, and its beginning where it is very long.
    Times are monotonic seconds (`started_wall` is Unix time); `bytes_in` and `bytes_out` count
    body bytes as received from the client and as sent to it, framing included in the latter;
    token counts are what the endpoint reported, None where it reported nothing. `ended` is set
    when the last byte was handed to the client's connection or the request failed.
    `queue_seconds` is how long it waited in olla, None when it did not; `predicted` how many
    seconds to the first byte were expected when it came, None where routing did not ask.
    `rewritten` says what olla has changed in the request's body, where it was told to;
    `inference` says that it occupies a slot of a model, `load_options` how it wanted that loaded.
    `caller` is what limits and usage are counted under (`key:1`, `static:ci`, `addr:10.0.0.1`),
    `owner`, `key_name` and `tier` are those of its key, empty where it has none; `estimated` says
    that token counts are olla's estimates; `content` is the text of request and answer, only where
    they are to be kept.
    """

    __slots__ = (
        *("attempts", "bytes_in", "bytes_out", "caller", "client", "content", "decision"),
        *("dialect", "ended", "endpoint", "endpoint_type", "estimated", "failure", "first_byte"),
        *("id", "inference", "key_name", "load_options", "load_seconds", "method", "model"),
        *("operation", "output_tokens", "owner", "path", "predicted", "prompt_tokens"),
        *("queue_seconds", "reason", "rewritten", "started", "started_wall", "status"),
        *("strategy", "streaming", "tier", "translated"),
    )

    def __init__(
        self,
        id: str,
        method: str,
        path: str,
        client: str,
        started: float,
        started_wall: float,
        dialect: str = "",
        operation: str = "",
        model: str | None = None,
        streaming: bool = False,
        endpoint: str | None = None,
        endpoint_type: str | None = None,
        strategy: str = "",
        decision: str = "",
        reason: str = "",
        status: int = 0,
        first_byte: float | None = None,
        ended: float = 0.0,
        bytes_in: int = 0,
        bytes_out: int = 0,
        prompt_tokens: int | None = None,
        output_tokens: int | None = None,
        load_seconds: float | None = None,
        queue_seconds: float | None = None,
        predicted: float | None = None,
        rewritten: str | None = None,
        inference: bool = False,
        load_options: tuple[tuple[str, float], ...] = (),
        attempts: list[AttemptRecord] | None = None,
        failure: Failure | None = None,
        caller: str = "",
        owner: str = "",
        key_name: str = "",
        tier: str = "",
        estimated: bool = False,
        content: tuple[str, str] | None = None,
    ) -> None:
        self.id = id
        self.method = method
        self.path = path[:_PATH_CHARACTERS_MAX]
        self.client = client
        self.started = started
        self.started_wall = started_wall
        self.dialect = dialect
        self.operation = operation
        self.model = model
        self.streaming = streaming
        self.endpoint = endpoint
        self.endpoint_type = endpoint_type
        self.strategy = strategy
        self.decision = decision
        self.reason = reason
        self.status = status
        self.first_byte = first_byte
        self.ended = ended
        self.bytes_in = bytes_in
        self.bytes_out = bytes_out
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.load_seconds = load_seconds
        self.queue_seconds = queue_seconds
        self.predicted = predicted
        self.rewritten = rewritten
        self.inference = inference
        self.load_options = load_options
        self.attempts: list[AttemptRecord] = [] if attempts is None else attempts
        self.failure = failure
        self.caller = caller
        self.owner = owner
        self.key_name = key_name
        self.tier = tier
        self.translated: tuple[str, ...] | None = None
        """The fields that a translation dropped; None for a request that was not translated."""
        self.estimated = estimated
        self.content = content


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

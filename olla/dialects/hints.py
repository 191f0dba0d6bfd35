"""Read what routing needs from a request's body besides the model: load options and length.

Nothing here is required: a value of another type is ignored, and the server judges it. Values are
decoded as the types that they may have, after a check of their length. A value that would take long
to read is rejected, because a server might obey it.
"""

import re
from collections.abc import Iterable
from math import inf

import msgspec

from olla.dialects.dialect import Operation, Peek
from olla.dialects.native_options import (
    KEEP_ALIVE,
    LOAD_OPTIONS,
    NUMBER,
    OPTIONS,
    RAW_OPTIONS,
)
from olla.dialects.top_level import TopLevel, without_surrogates
from olla.failures import Failed, Failure, Kind

__all__ = ["hinted", "keep_alive_seconds", "load_options"]

_OUTPUT_MAX = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_EMPTY = (b"[]", b'""', b"null")
_OPTIONS_MAX = 1_048_576
"""Maximum bytes of all options: 3 ms."""
_NUMBER_MAX = 400
"""Bytes of a number. A float has 309 digits at most; reading ten million takes 50 ms."""
_SAYS_NOTHING = {"num_ctx": 0.0, "num_batch": 512.0, "main_gpu": 0.0, "num_thread": 0.0}
"""Values that are equivalent to leaving the option out."""
_LOADS_WHEN_EMPTY = frozenset({Operation.GENERATE, Operation.CHAT})
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
_NO_OPTIONS = (None,) * (len(LOAD_OPTIONS) + 1)
_STARTS_NUMBER = frozenset(b"-0123456789")


def hinted(
    model: str, stream: bool, operation: Operation, fields: TopLevel, *, native: bool
) -> Peek:
    """What the body's top level tells besides `model` and `stream`, with these.

    `native` says that it is Ollama's own format.

    Raises:
        Failed: a number, or the options, are longer than any request needs.
    """
    raw = fields.get("messages")
    if raw is None:
        raw = fields.get("prompt")
    if raw is None:
        raw = fields.get("input")
    prompt = None
    if raw is not None:
        prompt = memoryview(raw)
        if prompt.nbytes <= 4 and prompt.tobytes() in _EMPTY:
            prompt = None
    options: tuple[object, ...] = ()
    keep_alive = output_max = None
    if native:
        raw = fields.get("options")
        if raw is not None:
            options = _options(raw)
            output_max = options[-1]
        raw = fields.get("keep_alive")
        if raw is not None:
            keep_alive = keep_alive_seconds(_keep_alive(raw))
    else:
        # Which of them a server obeys is its own business: the longest is what it may come to.
        told = [_number(key, raw) for key in _OUTPUT_MAX if (raw := fields.get(key)) is not None]
        output_max = max((each for each in told if type(each) is int), default=None)
    return Peek(
        model,
        stream,
        load_options(options) if options else (),
        keep_alive,
        prompt,
        output_max if type(output_max) is int and output_max > 0 else None,
        native and prompt is None and operation in _LOADS_WHEN_EMPTY,
    )


def load_options(values: Iterable[object]) -> tuple[tuple[str, float], ...]:
    """The options that belong to a loaded model, with their names and in a comparable form; given
    are the values of `LOAD_OPTIONS`, in that order.

    Nulls, wrong types, values that are the default anyway, and a negative `num_gpu` (which leaves
    it to the server) do not count.
    """
    return tuple(
        [
            (name, float(value))
            for name, value in zip(LOAD_OPTIONS, values, strict=False)
            if isinstance(value, (bool, int, float))
            and _SAYS_NOTHING.get(name) != value
            and not (name == "num_gpu" and value < 0)
            and abs(value) < 1e15
        ]
    )


def keep_alive_seconds(value: object) -> float | None:
    """Ollama's `keep_alive` in seconds: a number of seconds, or a duration such as `5m`.

    Negative means for ever. None for what says nothing or cannot be read.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return inf if value < 0 else float(value)
    if not isinstance(value, str) or len(value) > 64:
        return None
    text = value.strip().lstrip("+-")
    if text == "0":
        return 0.0
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    return inf if value.strip().startswith("-") and seconds else seconds


def _options(raw: msgspec.Raw) -> tuple[object, ...]:
    """Return the values of `LOAD_OPTIONS` and `num_predict`; None for missing ones."""
    size = memoryview(raw).nbytes
    if size > _OPTIONS_MAX:
        raise _too_long("options", _OPTIONS_MAX)
    if size <= _NUMBER_MAX:  # then so is each number
        try:
            return msgspec.structs.astuple(OPTIONS.decode(raw))
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            pass
    try:
        # Half a surrogate pair, in a text to stop at, is no reason to overlook the others.
        raws = RAW_OPTIONS.decode(without_surrogates(bytes(raw)))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return _NO_OPTIONS
    return tuple([_number(name, getattr(raws, name)) for name in (*LOAD_OPTIONS, "num_predict")])


def _number(name: str, raw: msgspec.Raw) -> object:
    """Return a number or a flag; None for other values."""
    text = memoryview(raw)
    if text.nbytes == 0:
        return None
    if text.nbytes > _NUMBER_MAX:
        if text[0] in _STARTS_NUMBER:
            raise _too_long(name, _NUMBER_MAX)
        return None
    try:
        return NUMBER.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _keep_alive(raw: msgspec.Raw) -> object:
    text = memoryview(raw)
    if text.nbytes > _NUMBER_MAX:
        return _number("keep_alive", raw)
    try:
        return KEEP_ALIVE.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _too_long(name: str, most: int) -> Failed:
    message = f"{name} may be {most} bytes long at most"
    return Failed(Failure(Kind.BAD_REQUEST, message))

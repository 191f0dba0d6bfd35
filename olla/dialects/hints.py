"""What a request's body tells routing besides the model: how it is loaded, how long it is.

Nothing here is required and nothing is refused: what cannot be read says nothing, and the server
behind answers for it.
"""

import re
from math import inf
from typing import Any

import msgspec

from olla.dialects.dialect import Operation, Peek
from olla.dialects.top_level import TopLevel

__all__ = ["hinted", "keep_alive_seconds", "load_options"]

_OUTPUT_MAX = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_EMPTY = (b"[]", b'""', b"null")
_LOAD_OPTIONS = ("main_gpu", "num_batch", "num_ctx", "num_gpu", "num_thread", "use_mmap")
"""Options a model is loaded with, by name: other values mean another load."""
_SAYS_NOTHING = {"num_ctx": 0.0, "num_batch": 512.0, "main_gpu": 0.0, "num_thread": 0.0}
"""Values that are the same as leaving the option out."""
_LOADS_WHEN_EMPTY = frozenset({Operation.GENERATE, Operation.CHAT})
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}

_OPTIONS = msgspec.json.Decoder(dict[str, Any])
_ANY = msgspec.json.Decoder()


def hinted(
    model: str, stream: bool, operation: Operation, fields: TopLevel, *, native: bool
) -> Peek:
    """What the body's top level tells besides `model` and `stream`, with these.

    `native` says that it is Ollama's own format.
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
    options: dict[str, Any] = {}
    keep_alive = output_max = None
    if native:
        raw = fields.get("options")
        if raw is not None:
            options = _object(raw)
            output_max = options.get("num_predict")
        raw = fields.get("keep_alive")
        if raw is not None:
            keep_alive = keep_alive_seconds(_value(raw))
    else:
        # Which of them a server obeys is its own business: the longest is what it may come to.
        told = [_value(raw) for key in _OUTPUT_MAX if (raw := fields.get(key)) is not None]
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


def load_options(options: dict[str, Any]) -> tuple[tuple[str, float], ...]:
    """The options that belong to a loaded model, sorted, in a comparable form.

    Nulls, wrong types, values that are the default anyway, and a negative `num_gpu` (which leaves
    it to the server) do not count.
    """
    return tuple(
        (name, float(value))
        for name in _LOAD_OPTIONS
        if isinstance(value := options.get(name), (bool, int, float))
        and _SAYS_NOTHING.get(name) != value
        and not (name == "num_gpu" and value < 0)
        and abs(value) < 1e15
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


def _object(raw: msgspec.Raw) -> dict[str, Any]:
    try:
        return _OPTIONS.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return {}


def _value(raw: msgspec.Raw) -> object:
    try:
        return _ANY.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None

"""Reading `model` and `stream` from a JSON body, in a way no server behind reads differently.

Ollama's decoder takes the last of several keys and does not mind their case; other servers do
otherwise. A body in which the model could mean two things is refused, so that the model that was
checked and routed by is the one that is served. Values that are not needed are not decoded.
"""

import json
import re
from typing import Any

import msgspec

from olla.dialects.bulk import TOP_LEVEL_KEYS_MAX, too_many_keys
from olla.dialects.dialect import Operation, Peek
from olla.dialects.hints import hinted
from olla.dialects.top_level import NotAnObject, TopLevel, top_level
from olla.failures import Failed, Failure, Kind

__all__ = [
    "MODEL_LENGTH_MAX",
    "check_model",
    "model_keys",
    "other_keys",
    "peek_json",
    "peek_leniently",
]

MODEL_LENGTH_MAX = 512
"""Characters. Ollama's own names are bounded at about 590 with a host of 350."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_ESCAPED_LETTER = re.compile(rb"\\u00[4-7]|\\u017[fF]")
"""What a key's letters look like when they are escaped; U+017F is an s to who ignores case."""

_NAME = msgspec.json.Decoder(str | None)
_FLAG = msgspec.json.Decoder(bool | None)

_KNOWN = frozenset(
    {
        *("model", "name", "source", "prompt", "messages", "input", "suffix", "system", "stream"),
        *("options", "keep_alive", "format", "template", "raw", "images", "think", "tools"),
        *("context", "truncate", "dimensions", "temperature", "top_p", "top_k", "max_tokens"),
        *("max_completion_tokens", "n", "stop", "seed", "user", "tool_choice", "store"),
        *("response_format", "stream_options", "presence_penalty", "frequency_penalty"),
        *("logprobs", "top_logprobs", "parallel_tool_calls", "reasoning_effort", "metadata"),
        *("encoding_format", "reasoning", "instructions", "max_output_tokens", "logit_bias"),
    }
)
"""Keys that are not one of the model's in another case."""
_SEARCHED_MAX = 4096
"""Bytes."""
_PAIRED_MAX = 2 * 1024 * 1024
"""Bytes. Reading pair by pair takes some 70 ms a megabyte."""
_PAIR_MIN = len('"name":1,')
"""Bytes that a second value for the shortest key of a model takes."""
_QUOTED = {key: f'"{key}"'.encode() for key in ("model", "name", "source", "destination", "from")}
_BACKSLASH = 0x5C

_MODEL = ("model",)
_MODEL_KEYS: dict[Operation, tuple[str, ...]] = {
    Operation.SHOW: ("model", "name"),
    Operation.PULL: ("model", "name"),
    Operation.PUSH: ("model", "name"),
    Operation.CREATE: ("model", "name"),
    Operation.DELETE: ("model", "name"),
    Operation.COPY: ("source",),
}
_OTHER_KEYS: dict[Operation, tuple[str, ...]] = {
    Operation.CREATE: ("name", "from"),
    Operation.COPY: ("destination",),
}


def model_keys(operation: Operation) -> tuple[str, ...]:
    """Where an operation's body names the model: the first key that says something counts.

    `name` is how Ollama's management calls spelled it before they had `model`.
    """
    return _MODEL_KEYS.get(operation, _MODEL)


def other_keys(operation: Operation) -> tuple[str, ...]:
    """Where an operation's body names models that it reads or makes besides the first."""
    return _OTHER_KEYS.get(operation, ())


def peek_json(
    body: bytes,
    keys: tuple[str, ...],
    *,
    others: tuple[str, ...] = (),
    streams_by_default: bool,
    model_required: bool,
    hints_for: Operation | None = None,
    native: bool = False,
) -> Peek:
    """Read a body. `keys` are where the model may stand, see `model_keys`; `others` where there
    may be more of them, see `other_keys`.

    `hints_for` is the operation, where routing wants to know more than the model (see `hints`);
    `native` says that the body is in Ollama's own format.

    Raises:
        Failed: it is not a JSON object in UTF-8, `model` or `stream` is of the wrong type or
            could be read in two ways, or there is no model although one is required.
    """
    fields = _fields(body)
    _refuse_ambiguity(body, fields, keys + others if others else keys)
    raw = fields.get("stream")
    stream = streams_by_default if raw is None else _flag(raw, streams_by_default)
    for key in keys:
        raw = fields.get(key)
        if raw is not None:
            model = _model(raw)
            if model:
                if others:
                    return Peek(model, stream, others=_named(fields, others))
                if hints_for is None or not hints_for.occupies_slot:
                    return Peek(model, stream)
                return hinted(model, stream, hints_for, fields, native=native)
    if model_required:
        raise Failed(
            Failure(Kind.MODEL_MISSING, f'model is required; name one in the body\'s "{keys[0]}"')
        )
    return Peek(None, stream)


def peek_leniently(body: bytes) -> Peek:
    """The model a body names, if it is a JSON object that names one; nothing is required.

    Raises:
        Failed: it names a model in an ambiguous way, or one that cannot be a model's name.
    """
    try:
        fields = _fields(body)
    except Failed:
        return Peek(None, False)
    _refuse_ambiguity(body, fields, _MODEL)
    raw = fields.get("model")
    stream = fields.get("stream")
    model = _model(raw) if raw is not None else None
    return Peek(model or None, stream is not None and bytes(stream) == b"true")


def check_model(name: str) -> str:
    """`name`, if it can be a model's.

    Raises:
        Failed: it is blank, too long, or has control characters.
    """
    if len(name) > MODEL_LENGTH_MAX or _CONTROL.search(name) or not name.strip():
        raise Failed(
            Failure(
                Kind.MODEL_NOT_STRING,
                "model must be a name of up to "
                f"{MODEL_LENGTH_MAX} characters without control characters",
            )
        )
    return name


def _fields(body: bytes) -> TopLevel:
    """The body's top level, in UTF-8 throughout."""
    try:
        if not body.isascii():
            body.decode()  # what is skipped is not checked by the decoder
        if too_many_keys(body):
            raise _not_json(f"it has more than {TOP_LEVEL_KEYS_MAX} keys")
        return top_level(body)
    except UnicodeDecodeError:
        raise _not_json("it is not UTF-8") from None
    except NotAnObject as error:
        if not body.strip():
            message = "missing request body; send a JSON object"
            raise Failed(Failure(Kind.BODY_NOT_JSON, message)) from None
        if body.startswith(b"\xef\xbb\xbf"):
            raise _not_json("it begins with a byte order mark; send it without") from None
        raise _not_json(str(error)) from None


def _refuse_ambiguity(body: bytes, fields: TopLevel, keys: tuple[str, ...]) -> None:
    """Refuse a body whose top level has one of `keys` twice, or in another case.

    Nearly every body has well-known keys only. When it is short, the key stands in it once; when
    it is long, it is no longer than keys and values are, so that there is no room for another one:
    that is quicker to see than to search through a long prompt. Other spellings show among
    `fields`. A key that stands there twice in the same spelling does not, but then the body has
    its text once more than all values together.
    """
    if fields.keys() <= _KNOWN:
        if len(body) <= _SEARCHED_MAX:
            if all(body.count(_QUOTED[key]) <= 1 for key in keys) and _BACKSLASH not in body:
                return
        elif len(body) - _compact_length(fields) < _PAIR_MIN:
            return
    folded = [*map(str.casefold, fields)]
    for key in keys:
        there = folded.count(key)
        if there > 1 or (there and key not in fields):
            raise _ambiguous(key)
        quoted = _QUOTED[key]
        stands = body.count(quoted)
        if stands > there and stands != there + sum(
            bytes(value).count(quoted) for value in fields.values()
        ):
            _refuse_repeated(body, key)
    if body.find(_BACKSLASH) >= 0 and _ESCAPED_LETTER.search(body) is not None:
        for key in keys:
            _refuse_repeated(body, key)


def _compact_length(fields: TopLevel) -> int:
    """Bytes of the object without white space between its parts, and with every key once."""
    return 1 + sum([len(key) + memoryview(value).nbytes + 4 for key, value in fields.items()])


def _refuse_repeated(body: bytes, key: str) -> None:
    """The same, read pair by pair: slow, for bodies that look unusual."""
    if len(body) > _PAIRED_MAX:
        raise Failed(
            Failure(
                Kind.BAD_REQUEST,
                f'the body may have a second "{key}": it is long, and has that word or escaped '
                "letters where keys may be; write plain letters as they are",
            )
        )
    try:
        pairs: Any = json.loads(body, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise _not_json(str(error)) from None
    if sum(name.casefold() == key for name, _ in pairs) > 1:
        raise _ambiguous(key)


def _model(raw: msgspec.Raw) -> str | None:
    try:
        name: str | None = _NAME.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        shown = bytes(raw)[:40].decode("utf-8", "replace")
        raise Failed(
            Failure(Kind.MODEL_NOT_STRING, f"model must be a string, not {shown}")
        ) from None
    if not name or (len(name) <= MODEL_LENGTH_MAX and name.isprintable() and name[0] != " "):
        return name
    return check_model(name)


def _named(fields: TopLevel, keys: tuple[str, ...]) -> tuple[str, ...]:
    """The models that stand under these keys."""
    found = (_model(fields[key]) for key in keys if key in fields)
    return tuple(name for name in found if name)


def _flag(raw: msgspec.Raw, default: bool) -> bool:
    try:
        flag = _FLAG.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise Failed(Failure(Kind.BAD_REQUEST, "stream must be true or false")) from None
    return default if flag is None else flag


def _ambiguous(key: str) -> Failed:
    return Failed(
        Failure(Kind.BAD_REQUEST, f'the request body must have one "{key}" only, spelled like that')
    )


def _not_json(why: str) -> Failed:
    return Failed(Failure(Kind.BODY_NOT_JSON, f"the request body is not a JSON object: {why}"))

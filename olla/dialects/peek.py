"""Read `model` and `stream` from a JSON body, so that no server reads them differently.

Ollama's decoder takes the last of repeated keys and ignores their case; other servers differ. A
body with an ambiguous model is rejected, so that the checked and routed model is the one that is
served. Other values are not decoded.
"""

import re

import msgspec

from olla.dialects.dialect import Operation, Peek
from olla.dialects.hints import hinted
from olla.dialects.json_scan import (
    MEMBERS_MAX,
    JsonObject,
    Steps,
    TooComplex,
    finished,
    scan_object,
)
from olla.dialects.top_level import NotAnObject, TopLevel
from olla.failures import Failed, Failure, Kind

__all__ = [
    "MODEL_LENGTH_MAX",
    "check_model",
    "model_keys",
    "other_keys",
    "peek_json",
    "peek_leniently",
    "scan_body",
    "scan_leniently",
]

MODEL_LENGTH_MAX = 512
"""Characters. Ollama's own names are bounded at about 590 with a host of 350."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_ESCAPED_LETTER = re.compile(rb"\\u0(?:0[4-7]|17[fF])")
"""Patterns of escaped letters in a key. U+017F equals `s` for decoders that ignore case."""

_FIELDS = msgspec.json.Decoder(TopLevel)
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
"""Keys that do not equal one of the model's keys in another case."""
_SEARCHED_MAX = 4096
"""Bytes."""
_NAME_BYTES_MAX = 12 * MODEL_LENGTH_MAX + 2
"""Bytes of a model's name in JSON: each letter may be two escapes."""
_HALF_PAIR = re.compile(
    rb"\\[^u]|\\u[dD][89abAB][0-9A-Fa-f]{2}\\u[dD][c-fC-F][0-9A-Fa-f]{2}"
    rb"|(\\u[dD][89a-fA-F][0-9A-Fa-f]{2})"
)
_PAIR_MIN = len('"name":1,')
"""The least bytes of a second value for the shortest key of a model."""
_SHOWN_MAX = 40
_QUOTED = {key: f'"{key}"'.encode() for key in ("model", "name", "source", "destination", "from")}
_QUOTE, _BACKSLASH = 0x22, 0x5C

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
    """The keys with further models that an operation reads or creates."""
    return _OTHER_KEYS.get(operation, ())


def scan_body(body: bytes) -> Steps[JsonObject]:
    """Scan a request's body a step at a time, see `scan_object`: for one that is long.

    Raises:
        Failed: it is not a JSON object in UTF-8, or more complex than any request.
    """
    try:
        return (yield from scan_object(body))
    except NotAnObject as error:
        raise _refusal(body, error) from None


def scan_leniently(body: bytes) -> Steps[JsonObject]:
    """The same for a path that olla does not know, which may take any body: one that is no JSON
    object, or too complex, has no members."""
    try:
        return (yield from scan_object(body))
    except NotAnObject:
        return JsonObject(body, [])


def _refusal(body: bytes, error: NotAnObject) -> Failed:
    if isinstance(error, TooComplex):
        return Failed(Failure(Kind.BAD_REQUEST, f"the request body has {error}; send less at once"))
    if not body[:_SEARCHED_MAX].strip():
        return Failed(Failure(Kind.BODY_NOT_JSON, "missing request body; send a JSON object"))
    if body.startswith(b"\xef\xbb\xbf"):
        return _not_json("it begins with a byte order mark; send it without")
    return _not_json(str(error))


def peek_json(
    body: bytes,
    keys: tuple[str, ...],
    *,
    others: tuple[str, ...] = (),
    streams_by_default: bool,
    model_required: bool,
    hints_for: Operation | None = None,
    native: bool = False,
    scanned: JsonObject | None = None,
) -> Peek:
    """Read a body. `keys` are where the model may stand, see `model_keys`; `others` where there
    may be more of them, see `other_keys`.

    `hints_for` is the operation, where routing wants to know more than the model (see `hints`);
    `native` says that the body is in Ollama's own format. A long body has been scanned before
    (`scanned`, see `scan_body`), because that takes several steps.

    Raises:
        Failed: it is not a JSON object in UTF-8, `model` or `stream` is of the wrong type or
            could be read in two ways, or there is no model although one is required.
    """
    watched = keys + others if others else keys
    fields = _fields_at_once(body, watched) if scanned is None else None
    if fields is None:
        fields = _unambiguous(scanned or finished(scan_body(body)), watched)
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


def peek_leniently(body: bytes, scanned: JsonObject | None = None) -> Peek:
    """The model a body names, if it is a JSON object that names one; nothing is required. A long
    body was scanned before, see `scan_leniently`.

    Raises:
        Failed: it names a model in an ambiguous way, or one that cannot be a model's name.
    """
    fields = _fields_at_once(body, _MODEL) if scanned is None else None
    if fields is None:
        fields = _unambiguous(scanned or finished(scan_leniently(body)), _MODEL)
    raw = fields.get("model")
    stream = fields.get("stream")
    model = _model(raw) if raw is not None else None
    return Peek(model or None, stream is not None and memoryview(stream)[:5].tobytes() == b"true")


def check_model(name: str) -> str:
    """`name`, if it can be a model's.

    Raises:
        Failed: it is blank, too long, or has control characters.
    """
    if len(name) > MODEL_LENGTH_MAX or _CONTROL.search(name) or not name.strip():
        raise _unusable_name()
    return name


def _unambiguous(scanned: JsonObject, keys: tuple[str, ...]) -> TopLevel:
    """The body's top level.

    Raises:
        Failed: one of `keys` stands there twice, or in another spelling.
    """
    longest = max(map(len, keys))
    names = [name for name, _, _ in scanned.members if len(name) <= longest]
    for key in keys:
        there = sum([name.casefold() == key for name in names])
        if there > 1 or (there and key not in names):
            raise _ambiguous(key)
    return scanned.fields()


def _fields_at_once(body: bytes, keys: tuple[str, ...]) -> TopLevel | None:
    """The top level of a short body by one call in C; None where that does not do, or leaves in
    doubt whether each of `keys` stands there once.

    Nearly every body has well-known keys only. When it is short, each of `keys` stands in it once;
    when it is long, it is no longer than keys and values are, so that there is no room for another
    one: that is quicker to see than to search through a long prompt. A key that stands there twice
    in the same spelling does not show among the fields, but then the body has its text once more.
    """
    try:
        if not body.isascii():
            body.decode()  # what is skipped is not checked by the decoder
        fields: TopLevel = _FIELDS.decode(body)
    except (UnicodeDecodeError, msgspec.MsgspecError, RecursionError):
        return None
    if len(fields) > MEMBERS_MAX:
        return None
    if fields.keys() <= _KNOWN:
        if len(body) <= _SEARCHED_MAX:
            if all(body.count(_QUOTED[key]) <= 1 for key in keys) and _BACKSLASH not in body:
                return fields
        elif len(body) - _compact_length(fields) < _PAIR_MIN:
            return fields
    folded = [*map(str.casefold, fields)]
    for key in keys:
        there = folded.count(key)
        if there > 1 or (there and key not in fields):
            raise _ambiguous(key)
        quoted = _QUOTED[key]
        stands = body.count(quoted)
        if stands > there and stands != there + sum(
            [bytes(value).count(quoted) for value in fields.values()]
        ):
            return None
    if _BACKSLASH in body and _ESCAPED_LETTER.search(body) is not None:
        return None
    return fields


def _compact_length(fields: TopLevel) -> int:
    """Bytes of the object without white space between its parts, and with every key once."""
    return 1 + sum([len(key) + memoryview(value).nbytes + 4 for key, value in fields.items()])


def _model(raw: msgspec.Raw) -> str | None:
    text = memoryview(raw)
    name: str | None = None
    if text.nbytes <= _NAME_BYTES_MAX:
        try:
            name = _NAME.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            name = _name_in_halves(bytes(raw))
    elif text[0] == _QUOTE:
        raise _unusable_name()
    else:
        raise _not_a_string(bytes(text[:_SHOWN_MAX]))
    if not name or (len(name) <= MODEL_LENGTH_MAX and name.isprintable() and name[0] != " "):
        return name
    return check_model(name)


def _name_in_halves(text: bytes) -> str | None:
    """Replace half a surrogate pair in a name by U+FFFD, as Go's and Python's decoders do."""
    try:
        name: str | None = _NAME.decode(_HALF_PAIR.sub(_whole, text))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise _not_a_string(text[:_SHOWN_MAX]) from None
    return name


def _whole(match: re.Match[bytes]) -> bytes:
    return match[0] if match[1] is None else rb"\ufffd"


def _named(fields: TopLevel, keys: tuple[str, ...]) -> tuple[str, ...]:
    """Return the models under these keys."""
    found = (_model(fields[key]) for key in keys if key in fields)
    return tuple(name for name in found if name)


def _flag(raw: msgspec.Raw, default: bool) -> bool:
    try:
        flag = _FLAG.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise Failed(Failure(Kind.BAD_REQUEST, "stream must be true or false")) from None
    return default if flag is None else flag


def _unusable_name() -> Failed:
    most = f"up to {MODEL_LENGTH_MAX} characters"
    message = f"model must be a name of {most} without control characters"
    return Failed(Failure(Kind.MODEL_NOT_STRING, message))


def _not_a_string(text: bytes) -> Failed:
    shown = text.decode("utf-8", "replace")
    return Failed(Failure(Kind.MODEL_NOT_STRING, f"model must be a string, not {shown}"))


def _ambiguous(key: str) -> Failed:
    return Failed(
        Failure(Kind.BAD_REQUEST, f'the request body must have one "{key}" only, spelled like that')
    )


def _not_json(why: str) -> Failed:
    return Failed(Failure(Kind.BODY_NOT_JSON, f"the request body is not a JSON object: {why}"))

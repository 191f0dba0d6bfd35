"""Reading `model` and `stream` from a JSON body, in a way no server behind reads differently.

Ollama's decoder takes the last of several keys and does not mind their case; other servers do
otherwise. A body in which `model` could mean two things is refused, so that the model that was
checked and routed by is the one that is served.
"""

import json
import re
from typing import Any

import msgspec

from olla.dialects.dialect import Peek
from olla.failures import Failed, Failure, Kind

__all__ = ["MODEL_LENGTH_MAX", "check_model", "peek_json", "peek_leniently"]

MODEL_LENGTH_MAX = 512
"""Characters. Ollama's own names are bounded at about 590 with a host of 350."""

_ESCAPED_LETTER = re.compile(rb"\\u00[46][4-5c-fC-F]")
"""An escaped letter of the word `model`: a key could be spelled with it."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class _Fields(msgspec.Struct):
    model: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    name: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    source: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    stream: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_DECODER = msgspec.json.Decoder(_Fields)
_STRING = msgspec.json.Decoder(str)


def peek_json(
    body: bytes, *, keys: tuple[str, ...], streams_by_default: bool, model_required: bool
) -> Peek:
    """Read a body. `keys` are where the model may stand, the first that is there counts.

    Raises:
        Failed: it is not a JSON object, or has no usable model although one is required.
    """
    if not body.strip():
        raise Failed(Failure(Kind.BODY_NOT_JSON, "missing request body; send a JSON object"))
    try:
        fields = _DECODER.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Failed(
            Failure(Kind.BODY_NOT_JSON, f"the request body is not a JSON object: {error}")
        ) from None
    _refuse_ambiguity(body)
    stream = streams_by_default
    if not isinstance(fields.stream, msgspec.UnsetType):
        stream = _flag(bytes(fields.stream), streams_by_default)
    for key in keys:
        raw = getattr(fields, key)
        if not isinstance(raw, msgspec.UnsetType) and bytes(raw) not in (b"null", b'""'):
            return Peek(_model(bytes(raw)), stream)
    if model_required:
        raise Failed(
            Failure(Kind.MODEL_MISSING, f'model is required; name one in the body\'s "{keys[0]}"')
        )
    return Peek(None, stream)


def peek_leniently(body: bytes) -> Peek:
    """The model a body names, if it is a JSON object that names one; nothing is required.

    Raises:
        Failed: it names a model in an ambiguous way.
    """
    if not body.lstrip().startswith(b"{"):
        return Peek(None, False)
    try:
        return peek_json(body, keys=("model",), streams_by_default=False, model_required=False)
    except Failed as failed:
        if failed.failure.kind is Kind.BODY_NOT_JSON:
            return Peek(None, False)
        raise


def check_model(name: str) -> str:
    """`name`, if it can be a model's.

    Raises:
        Failed: it is too long or has control characters.
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


def _model(raw: bytes) -> str:
    try:
        name = _STRING.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise Failed(
            Failure(Kind.MODEL_NOT_STRING, f"model must be a string, not {raw[:40]!r}")
        ) from None
    return check_model(name)


def _flag(raw: bytes, default: bool) -> bool:
    if raw == b"true":
        return True
    if raw == b"false":
        return False
    return default


def _refuse_ambiguity(body: bytes) -> None:
    folded = body.lower().count(b'"model"')
    if folded == 0 and _ESCAPED_LETTER.search(body) is None:
        return
    if folded == 1 and b'"model"' in body and _ESCAPED_LETTER.search(body) is None:
        return
    try:
        pairs: Any = json.loads(body, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise Failed(
            Failure(Kind.BODY_NOT_JSON, f"the request body is not a JSON object: {error}")
        ) from None
    spellings = [key for key, _ in pairs if key.casefold() == "model"]
    if len(spellings) > 1 or (spellings and spellings != ["model"]):
        raise Failed(
            Failure(
                Kind.BAD_REQUEST,
                'the request body must have exactly one "model", spelled like that',
            )
        )

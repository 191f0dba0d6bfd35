"""Giving a request's body another model name or context, and leaving the rest as it is."""

import msgspec

from olla.dialects.dialect import Operation
from olla.dialects.peek import model_keys
from olla.dialects.top_level import NotAnObject, TopLevel, top_level
from olla.failures import Failed, Failure, Kind

__all__ = ["replace_model", "set_num_ctx"]

_NOTHING = (b"null", b'""')


def replace_model(body: bytes, operation: Operation, model: str) -> bytes:
    """The same JSON object with `model` as its model.

    Values of other keys keep their bytes and their order. `body` must have been peeked into
    before, so that it names its model once.

    Raises:
        Failed: `body` is not a JSON object.
    """
    fields = _fields(body)
    keys = model_keys(operation)
    said = (key for key in keys if key in fields and bytes(fields[key]) not in _NOTHING)
    fields[next(said, keys[0])] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(fields)


def set_num_ctx(body: bytes, num_ctx: int) -> bytes:
    """The same native JSON object with `num_ctx` (tokens) among its options.

    Raises:
        Failed: `body`, or its `options`, is not a JSON object.
    """
    fields = _fields(body)
    raw = fields.get("options")
    options = _fields(bytes(raw)) if raw is not None and bytes(raw) != b"null" else {}
    options["num_ctx"] = msgspec.Raw(str(num_ctx).encode())
    fields["options"] = msgspec.Raw(msgspec.json.encode(options))
    return msgspec.json.encode(fields)


def _fields(body: bytes) -> TopLevel:
    try:
        return top_level(body)
    except NotAnObject as error:
        message = f"the request body is not a JSON object: {error}"
        raise Failed(Failure(Kind.BODY_NOT_JSON, message)) from None

"""Giving a request's body another model name, and leaving everything else as it is."""

import msgspec

from olla.dialects.dialect import Operation
from olla.dialects.peek import model_keys
from olla.dialects.top_level import NotAnObject, top_level
from olla.failures import Failed, Failure, Kind

__all__ = ["replace_model"]

_NOTHING = (b"null", b'""')


def replace_model(body: bytes, operation: Operation, model: str) -> bytes:
    """The same JSON object with `model` as its model.

    Values of other keys keep their bytes and their order. `body` must have been peeked into
    before, so that it names its model once.

    Raises:
        Failed: `body` is not a JSON object.
    """
    try:
        fields = top_level(body)
    except NotAnObject as error:
        message = f"the request body is not a JSON object: {error}"
        raise Failed(Failure(Kind.BODY_NOT_JSON, message)) from None
    keys = model_keys(operation)
    said = (key for key in keys if key in fields and bytes(fields[key]) not in _NOTHING)
    fields[next(said, keys[0])] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(fields)

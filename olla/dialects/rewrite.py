"""Giving a request's body another model name, and leaving everything else as it is."""

import msgspec

from olla.dialects.dialect import Operation

__all__ = ["replace_model"]

_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])


def replace_model(body: bytes, operation: Operation, model: str) -> bytes:
    """The same JSON object with `model` as its model.

    Values of other keys keep their bytes. `body` must have been peeked into before.
    """
    fields = _DECODER.decode(body)
    key = next(
        (key for key in ("model", *_OTHER_KEYS.get(operation, ())) if key in fields), "model"
    )
    fields[key] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(fields)


_OTHER_KEYS = {
    Operation.SHOW: ("name",),
    Operation.PUSH: ("name",),
    Operation.DELETE: ("name",),
    Operation.COPY: ("source",),
}

"""Replace the model name or the context in a request's body, and keep every other byte.

Changes are edits, which refer to places in the body: a long body is sent with its edits and never
copied.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from olla.dialects.dialect import Operation
from olla.dialects.json_scan import JsonObject, finished, first_place
from olla.dialects.peek import model_keys, scan_body

__all__ = ["Edit", "edited", "model_edit", "num_ctx_edits", "parts"]

_NOTHING = (b"null", b'""')


class Edit(NamedTuple):
    """Bytes of a body, from `start` to `end`, and their replacement."""

    start: int
    end: int
    text: bytes


def model_edit(
    body: bytes, operation: Operation, model: str, scanned: JsonObject | None = None
) -> Edit:
    """What makes `model` the JSON object's model.

    `body` must have been peeked into before, so that it names its model once.

    Raises:
        Failed: `body` is not a JSON object.
    """
    name = msgspec.json.encode(model)
    keys = model_keys(operation)
    if scanned is None and len(keys) == 1:
        place = first_place(body, keys[0])
        if place is not None:
            return Edit(place[0], place[1], name)
    found = scanned or finished(scan_body(body))
    for key in keys:
        for start, end in found.places(key):
            if body[start:end] not in _NOTHING:
                return Edit(start, end, name)
    for start, end in found.places(keys[0]):
        return Edit(start, end, name)
    at = body.rindex(b"}")
    comma = b"," if found.members else b""
    return Edit(at, at, comma + msgspec.json.encode(keys[0]) + b":" + name)


def num_ctx_edits(body: bytes, num_ctx: int, scanned: JsonObject | None = None) -> tuple[Edit, ...]:
    """What makes `num_ctx` (tokens) the context of a native JSON object that names one among its
    options.

    Raises:
        Failed: `body`, or its `options`, is not a JSON object.
    """
    found = scanned or finished(scan_body(body))
    text = str(num_ctx).encode()
    edits: list[Edit] = []
    for at, end in found.places("options"):
        options = body[at:end]
        if options.startswith(b"{"):
            places = finished(scan_body(options)).places("num_ctx")
            edits += [Edit(at + start, at + stop, text) for start, stop in places]
    return tuple(edits)


def parts(body: bytes, edits: Sequence[Edit]) -> tuple[bytes | memoryview, ...]:
    """Return the body with its edits, which must not overlap, as pieces."""
    view = memoryview(body)
    pieces: list[bytes | memoryview] = []
    at = 0
    for start, end, text in sorted(edits):
        pieces += [view[at:start], text]
        at = end
    return (*pieces, view[at:])


def edited(body: bytes, edits: Sequence[Edit]) -> bytes:
    """Return the edited body in one piece."""
    if len(edits) == 1:
        start, end, text = edits[0]
        return b"%b%b%b" % (body[:start], text, body[end:])
    return b"".join(parts(body, edits)) if edits else body

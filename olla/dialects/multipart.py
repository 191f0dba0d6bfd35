"""The model of a multipart/form-data request (audio transcription). RFC 7578."""

import re

from olla.dialects.dialect import Peek
from olla.dialects.peek import check_model
from olla.failures import Failed, Failure, Kind

__all__ = ["peek_multipart"]

_BOUNDARY = re.compile(r'multipart/form-data\s*;.*?boundary="?([^";]{1,70})"?', re.IGNORECASE)
_NAME = re.compile(rb'content-disposition:[^\r\n]*;\s*name="?(model|stream)"?(?:;|\s|$)', re.I)
_VALUE_MAX = 2048


def peek_multipart(content_type: str, body: bytes) -> Peek:
    """Find the fields `model` and `stream`.

    Raises:
        Failed: the body is not multipart/form-data, has no model, or has several.
    """
    match = _BOUNDARY.match(content_type)
    if match is None:
        raise Failed(
            Failure(
                Kind.BAD_REQUEST,
                "this operation takes multipart/form-data; its Content-Type must say so "
                "and name the boundary",
            )
        )
    delimiter = b"--" + match[1].encode("latin-1", "replace")
    found: dict[bytes, list[bytes]] = {}
    for part in body.split(delimiter)[1:]:
        head, blank, value = part.partition(b"\r\n\r\n")
        name = _NAME.search(head) if blank else None
        if name is not None:
            found.setdefault(name[1].lower(), []).append(value.removesuffix(b"\r\n"))
    models = found.get(b"model", [])
    if not models:
        raise Failed(Failure(Kind.MODEL_MISSING, 'model is required; add a form field "model"'))
    if len(models) > 1 or len(models[0]) > _VALUE_MAX:
        raise Failed(
            Failure(Kind.BAD_REQUEST, 'the form must have exactly one field "model", a name')
        )
    try:
        model = models[0].decode()
    except UnicodeDecodeError:
        raise Failed(Failure(Kind.MODEL_NOT_STRING, "model must be UTF-8 text")) from None
    stream = found.get(b"stream", [b""])[-1].strip().lower() in (b"true", b"1")
    return Peek(check_model(model), stream)

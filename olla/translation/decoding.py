"""Decodes what clients send, with errors that name the field."""

import re
from typing import Final, TypeVar

import msgspec

from olla.translation.conversation import Unsupported

__all__ = ["ABSENT", "compact", "decode", "present", "top_level"]

T = TypeVar("T")

_PLACE: Final = re.compile(r"^(.*?)(?: - at `\$\.?([^`]*)`)?$", re.DOTALL)
"""How msgspec says what is wrong and where."""
_FIELDS: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


ABSENT: Final = msgspec.Raw()
"""A field that is not there: a union with `msgspec.Raw` cannot be decoded."""


def present(value: msgspec.Raw) -> msgspec.Raw | None:
    """The value of a field; None if it is not there or null."""
    return None if bytes(value) in (b"", b"null") else value


def decode(decoder: "msgspec.json.Decoder[T]", data: bytes | msgspec.Raw, below: str = "") -> T:
    """Decode JSON. `below` is the path of the field that the data is the value of.

    Raises:
        Unsupported: a field is missing or has another type, or it is not JSON.
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        match = _PLACE.match(str(error))
        message, place = (match[1], match[2] or "") if match is not None else (str(error), "")
        field = ".".join(part for part in (below, place) if part) or "body"
        raise Unsupported(field.replace(".[", "["), message.lower()) from None
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise Unsupported(below or "body", f"this is not JSON: {error}") from None


def top_level(body: bytes) -> dict[str, msgspec.Raw]:
    """The fields of a body, undecoded.

    Raises:
        Unsupported: it is not a JSON object.
    """
    return decode(_FIELDS, body)


def compact(value: bytes | msgspec.Raw) -> str:
    """JSON text without white space; keys, numbers and their order stay as they are."""
    return msgspec.json.format(bytes(value), indent=-1).decode()

"""The top level of a JSON object: its keys, with the values as they stand, undecoded.

Fast, because what is not asked for is skipped; and as lenient as servers are in one point that
clients depend on. Does not know what any key means.
"""

import re

import msgspec

__all__ = ["NotAnObject", "TopLevel", "top_level"]

TopLevel = dict[str, msgspec.Raw]

_DECODER = msgspec.json.Decoder(TopLevel)
_HEX = rb"[0-9A-Fa-f]{2}"
_HIGH, _LOW = rb"\\u[dD][89abAB]" + _HEX, rb"\\u[dD][c-fC-F]" + _HEX
_SURROGATE = re.compile(rb"\\[^u]|" + _HIGH + _LOW + rb"|(" + _HIGH + rb"|" + _LOW + rb")")


class NotAnObject(ValueError):
    """It is no JSON object; the text says why."""


def top_level(data: bytes) -> TopLevel:
    """The keys and undecoded values of a JSON object. Of a repeated key the last value counts.

    Half a surrogate pair, which a client leaves behind that cuts text within an emoji, is read as
    U+FFFD. Go's and Python's decoders take it; ours does not.

    Raises:
        NotAnObject: `data` is no JSON object.
    """
    try:
        return _DECODER.decode(data)
    except UnicodeDecodeError:
        raise NotAnObject("it is not UTF-8") from None
    except (msgspec.MsgspecError, RecursionError) as error:
        if b"\\ud" not in data and b"\\uD" not in data:
            raise NotAnObject(str(error)) from None
    try:
        return _DECODER.decode(_SURROGATE.sub(_whole, data))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise NotAnObject(str(error)) from None


def _whole(match: re.Match[bytes]) -> bytes:
    return match[0] if match[1] is None else rb"\ufffd"

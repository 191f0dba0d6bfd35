"""The top level of a JSON object that is short: its keys, with the values as they stand, undecoded.

One call in C for all of it. What a client sends may be long, and is scanned by `json_scan`.
"""

import msgspec

__all__ = ["NotAnObject", "TopLevel", "top_level", "without_surrogates"]

TopLevel = dict[str, msgspec.Raw]

_DECODER = msgspec.json.Decoder(TopLevel)


class NotAnObject(ValueError):
    """It is no JSON object; the text says why."""


def top_level(data: bytes) -> TopLevel:
    """The keys and undecoded values of a JSON object. Of a repeated key the last value counts.

    Where half a surrogate pair stands anywhere, letters that are written as surrogates are read
    as others: this is for what an endpoint says of its answer, not for texts.

    Raises:
        NotAnObject: `data` is no JSON object.
    """
    try:
        return _DECODER.decode(data)
    except UnicodeDecodeError:
        raise NotAnObject("it is not UTF-8") from None
    except (msgspec.MsgspecError, RecursionError) as error:
        other = without_surrogates(data)
        if other == data:
            raise NotAnObject(str(error)) from None
    try:
        return _DECODER.decode(other)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise NotAnObject(str(error)) from None


def without_surrogates(data: bytes) -> bytes:
    """The same JSON, and as long, with U+E000 to U+EFFF in place of U+D000 to U+DFFF where these
    are written as escapes. Go and Python accept half a surrogate pair, msgspec does not; this is
    two passes in C, where mending each took 10 MB of text for 5 seconds. No ASCII letter is
    written so, so that no key becomes another's."""
    return data.replace(b"\\ud", b"\\ue").replace(b"\\uD", b"\\uE")

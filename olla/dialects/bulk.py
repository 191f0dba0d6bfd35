"""Whether a long body has more keys at its top level than any request has.

Reading a key costs a fifth of a microsecond, so a body of a hundred megabytes that has nothing
but keys would hold everybody up for seconds. Keys within messages, tools and the like are skipped
unread, so it is those beside them that count.
"""

import msgspec

__all__ = ["TOP_LEVEL_KEYS_MAX", "too_many_keys"]

TOP_LEVEL_KEYS_MAX = 10_000
_SHORT = 262_144
"""Bytes. A shorter body is read in no time whatever it holds."""
_NOTHING = msgspec.Raw(b"")


class _Bulky(msgspec.Struct):
    """Keys whose values may hold very many keys."""

    messages: msgspec.Raw = _NOTHING
    prompt: msgspec.Raw = _NOTHING
    input: msgspec.Raw = _NOTHING
    tools: msgspec.Raw = _NOTHING
    functions: msgspec.Raw = _NOTHING
    documents: msgspec.Raw = _NOTHING
    format: msgspec.Raw = _NOTHING
    response_format: msgspec.Raw = _NOTHING
    options: msgspec.Raw = _NOTHING
    logit_bias: msgspec.Raw = _NOTHING
    system: msgspec.Raw = _NOTHING
    metadata: msgspec.Raw = _NOTHING
    files: msgspec.Raw = _NOTHING
    adapters: msgspec.Raw = _NOTHING
    parameters: msgspec.Raw = _NOTHING


_DECODER = msgspec.json.Decoder(_Bulky)


def too_many_keys(body: bytes) -> bool:
    """Whether a body has so many keys beside its bulky ones that it is not to be read further.

    What is no JSON object is not: whoever reads it will say so.
    """
    if len(body) < _SHORT or body.count(b'":') <= TOP_LEVEL_KEYS_MAX:
        return False
    try:
        bulky = _DECODER.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return False
    within = sum(bytes(getattr(bulky, name)).count(b'":') for name in _Bulky.__struct_fields__)
    return body.count(b'":') - within > TOP_LEVEL_KEYS_MAX

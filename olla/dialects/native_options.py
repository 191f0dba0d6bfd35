"""The options of a native Ollama request that olla reads, with their types.

Other options are skipped, so they cost nothing to decode. Not compiled, because msgspec must see
the types.
"""

import msgspec

__all__ = [
    "KEEP_ALIVE",
    "LOAD_OPTIONS",
    "NUMBER",
    "OPTIONS",
    "RAW_OPTIONS",
    "Options",
    "RawOptions",
]

Number = bool | int | float | None
LOAD_OPTIONS = ("main_gpu", "num_batch", "num_ctx", "num_gpu", "num_thread", "use_mmap")
"""Options of a load, by name: different values cause another load."""


class Options(msgspec.Struct):
    """Options with their usual types: `LOAD_OPTIONS` in their order, and `num_predict`."""

    main_gpu: Number = None
    num_batch: Number = None
    num_ctx: Number = None
    num_gpu: Number = None
    num_thread: Number = None
    use_mmap: Number = None
    num_predict: Number = None


class RawOptions(msgspec.Struct):
    """The same for options with an unusual type: each is decoded separately, and empty if
    missing."""

    main_gpu: msgspec.Raw = msgspec.Raw()
    num_batch: msgspec.Raw = msgspec.Raw()
    num_ctx: msgspec.Raw = msgspec.Raw()
    num_gpu: msgspec.Raw = msgspec.Raw()
    num_thread: msgspec.Raw = msgspec.Raw()
    use_mmap: msgspec.Raw = msgspec.Raw()
    num_predict: msgspec.Raw = msgspec.Raw()


OPTIONS = msgspec.json.Decoder(Options)
RAW_OPTIONS = msgspec.json.Decoder(RawOptions)
NUMBER = msgspec.json.Decoder(Number)
KEEP_ALIVE = msgspec.json.Decoder(int | float | str | None)

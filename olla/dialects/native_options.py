"""The options of a native Ollama request that olla reads, with the types they may have.

Everything else among the options is passed over unread, so a body costs the same whatever it puts
there. Not compiled: msgspec has to see the types.
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
"""Options a model is loaded with, by name: other values mean another load."""


class Options(msgspec.Struct):
    """As they nearly always are: `LOAD_OPTIONS` in their order, and `num_predict`."""

    main_gpu: Number = None
    num_batch: Number = None
    num_ctx: Number = None
    num_gpu: Number = None
    num_thread: Number = None
    use_mmap: Number = None
    num_predict: Number = None


class RawOptions(msgspec.Struct):
    """The same where one of them is of another type: each is decoded by itself, and is empty where
    it is not there."""

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

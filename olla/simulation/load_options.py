"""Derive context, slots and memory of a model from its load options, and decide whether two
requests can share one loaded model.

Pure arithmetic, without requests or time.
"""

from collections.abc import Iterable

from olla.simulation.model_catalogue import ModelSpec

__all__ = ["LOAD_OPTIONS", "Options", "compatible", "context_length", "load_options", "needed"]

Options = tuple[tuple[str, float], ...]
"""Load options by name, sorted, without those that have no effect."""

LOAD_OPTIONS = (
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "use_mmap",
    "num_thread",
)
"""Options that belong to a loaded model: a request with others reloads it."""

_SAYS_NOTHING = {"num_ctx": 0.0, "num_batch": 512.0, "main_gpu": 0.0, "num_thread": 0.0}
"""Values with the same effect as omitting the option."""

_KV_SHARE = 1 / 50_000
"""Context memory per token and slot, as a share of the model's size: about 80 KB for 4 GB."""
_CONTEXT_MIN = 4
_AUTOMATIC_CONTEXTS = ((47 << 30, 262_144), (23 << 30, 32_768), (0, 4_096))
"""Ollama's own choice of context by memory."""


def load_options(options: Iterable[tuple[str, object]]) -> Options:
    """The load options among a request's options, in a comparable form.

    Nulls, values that are the default anyway, and a negative `num_gpu` (which leaves it to the
    server) do not count.
    """
    return tuple(
        sorted(
            (name, float(value))
            for name, value in options
            if name in LOAD_OPTIONS
            and isinstance(value, (bool, int, float))
            and _SAYS_NOTHING.get(name) != value
            and not (name == "num_gpu" and value < 0)
        )
    )


def compatible(loaded: Options, wanted: Options) -> bool:
    """Whether a request can use what is loaded as it is.

    Everything has to be the same; an omitted `num_ctx` means automatic and matches only that.
    Only an omitted `num_gpu` takes whatever is there.
    """
    if not any(name == "num_gpu" for name, _ in wanted):
        loaded = tuple(each for each in loaded if each[0] != "num_gpu")
    return loaded == wanted


def context_length(model: ModelSpec, options: Options, vram: int) -> int:
    """Tokens of context per slot on a node with `vram` bytes."""
    wanted = dict(options).get("num_ctx")
    if wanted is None:
        wanted = next(context for least, context in _AUTOMATIC_CONTEXTS if vram >= least)
    return max(_CONTEXT_MIN, min(int(wanted), model.context))


def needed(model: ModelSpec, context: int, slots: int) -> int:
    """Bytes of memory for weights and context."""
    return int(model.size * (1 + context * slots * _KV_SHARE))

"""What routing may know of a request."""

from math import inf

import msgspec

__all__ = ["Features"]


class Features(msgspec.Struct, frozen=True):
    """A request, as far as it matters where it goes.

    `models` are the canonical names any of which will do, best first: one for a plain name,
    several for an alias, none where the operation takes no model. `profiles` are the kinds of
    server that may serve it (None: any that speaks `dialect`). `tried` are the endpoints that
    failed this request already, `pinned` the one the caller insists on. `ticket` is a running
    number: the only chance there is, so that the same input gives the same decision.

    `load_options` are what it says of how the model is loaded, `keep_alive` how many seconds it
    wants it kept (None: does not say). `prompt_tokens` (an estimate) and `output_max` are tokens,
    `prompt_bytes` is the prompt's length as JSON text; `prefix` tells how it begins (see
    `affinity`), and `cached` how many of its tokens each endpoint (by name) is expected to have
    in its prompt cache. `embedding` says that it asks for vectors, `only_loads` that it works on
    nothing, `suggests` that the caller may be told names of other models. `also` is a dialect that
    it can be translated to, empty for none. `allowed` are the endpoints that the caller may be sent
    to (None: all). `caller` is whose fair share it comes out of, `order` its place among those that
    wait (lower first).
    """

    models: tuple[str, ...]
    dialect: str
    profiles: frozenset[str] | None = None
    tried: tuple[str, ...] = ()
    pinned: str | None = None
    ticket: int = 0
    load_options: tuple[tuple[str, float], ...] = ()
    keep_alive: float | None = None
    prompt_tokens: float = 0.0
    output_max: float = inf
    cached: dict[str, float] = {}
    embedding: bool = False
    only_loads: bool = False
    prefix: tuple[int, ...] = ()
    prompt_bytes: int = 0
    caller: str = ""
    order: float = inf
    allowed: frozenset[str] | None = None
    also: str = ""
    suggests: bool = True

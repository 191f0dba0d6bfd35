"""The properties of a request that routing uses."""

from math import inf

import msgspec

__all__ = ["Features"]


class Features(msgspec.Struct, frozen=True):
    """A request, as routing sees it.

    `models` are canonical names in order of preference: one for a plain name, several for an alias,
    none if the operation takes no model. `profiles` are the allowed types of server (None: any that
    speaks `dialect`). `tried` are endpoints that failed this request, and `pinned` is the endpoint
    that the caller requires. `ticket` is a running number and the only source of chance, so that
    the same input gives the same decision.

    `load_options` are options for loading the model, and `keep_alive` the seconds to keep it loaded
    (None: not given). `prompt_tokens` (an estimate) and `output_max` are tokens, and `prompt_bytes`
    is the length of the prompt's JSON text. `prefix` identifies its beginning (see `affinity`), and
    `cached` is the number of its tokens that each endpoint (by name) probably has in its prompt
    cache. `embedding`: the request is for vectors. `only_loads`: it does no inference. `suggests`:
    the caller may see names of other models. `also` is a dialect to which it can be translated, or
    empty. `allowed` are the caller's endpoints (None: all). `caller` is charged for fair shares,
    and `order` is its place in the queue (lower first).
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

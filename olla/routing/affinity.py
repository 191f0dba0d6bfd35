"""Estimate which endpoints have the beginning of a prompt in their cache.

The next turn of a conversation begins with the text of its last one, and the slot that served that
turn still has it computed. Prompts are cut into blocks. A checksum of all text up to its end
identifies a block. The longest known chain of blocks gives the endpoint and the saved tokens. They
count as saved seconds of prefill, so affinity yields to load without further rules. No text is
stored.
"""

from collections import OrderedDict
from collections.abc import Sequence
from zlib import crc32

import msgspec

from olla.fleet.instance import ModelInstance
from olla.fleet.twins import Twins
from olla.routing.features import Features

__all__ = ["CUTS", "PrefixCache", "prefix_blocks", "with_cached"]

CUTS = tuple(kilobytes * 1024 for kilobytes in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32))
"""Byte offsets at which a prompt's JSON text is cut. A kilobyte is about 200 tokens. Distances
grow, so that a long prompt stays cheap."""
_ENTRIES_MAX = 20_000
_ENDPOINTS_MAX = 4
"""Limits: the latest 20,000 blocks of all prompts, on four endpoints each."""


def prefix_blocks(text: memoryview | bytes) -> tuple[int, ...]:
    """Return a checksum for each cut within a prompt, over all text before the cut."""
    view = memoryview(text)
    size = len(view)
    blocks: list[int] = []
    value = start = 0
    for cut in CUTS:
        if cut > size:
            break
        value = crc32(view[start:cut], value)
        blocks.append(value)
        start = cut
    return tuple(blocks)


class PrefixCache:
    """The latest endpoints that served each beginning, by (model, block)."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, int], dict[str, int]] = OrderedDict()

    def remember(self, instance: ModelInstance, blocks: Sequence[int]) -> None:
        """Record that the instance has a prompt with these blocks in its cache."""
        name = instance.twin.name
        for block in blocks:
            key = (instance.identity, block)
            served = self._seen.get(key)
            if served is None:
                served = self._seen[key] = {}
                if len(self._seen) > _ENTRIES_MAX:
                    self._seen.popitem(last=False)
            else:
                self._seen.move_to_end(key)
                served.pop(name, None)
                if len(served) >= _ENDPOINTS_MAX:
                    del served[next(iter(served))]
            served[name] = instance.finished

    def cached(self, instances: Sequence[ModelInstance], blocks: Sequence[int]) -> dict[str, float]:
        """Return how many bytes of a prompt each endpoint (by name) probably has cached.

        Every request that an instance has finished since replaced the cache of one slot.
        """
        found: dict[str, float] = {}
        if not instances:
            return found
        by_name = {instance.twin.name: instance for instance in instances if instance.resident}
        identity = instances[0].identity
        for count in range(len(blocks), 0, -1):
            served = self._seen.get((identity, blocks[count - 1]))
            for name, finished in (served or {}).items():
                instance = by_name.get(name)
                if instance is not None and name not in found:
                    others = max(0, instance.finished - finished - 1)
                    worth = max(0.0, 1 - others / (2 * instance.slots.limit))
                    found[name] = CUTS[count - 1] * worth
            if len(found) >= _ENDPOINTS_MAX:
                break
        return {name: worth for name, worth in found.items() if worth > 0}


def with_cached(features: Features, twins: Twins, prefixes: PrefixCache) -> Features:
    """Return the request with the number of tokens that each endpoint probably has cached."""
    instances = twins.instances(features.models[0]) if features.models else ()
    known = prefixes.cached(instances, features.prefix)
    if not known:
        return features
    per_byte = features.prompt_tokens / max(features.prompt_bytes, 1)
    cached = {name: count * per_byte for name, count in known.items()}
    return msgspec.structs.replace(features, cached=cached)

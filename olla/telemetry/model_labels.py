"""Under which label a model is counted, so that clients cannot invent labels.

Only names that an endpoint lists become labels, and only so many of them; whatever a client
sends besides is `other`.
"""

from collections.abc import Callable

from olla.fleet.model_names import canonical
from olla.fleet.snapshot import Snapshot

__all__ = ["OTHER", "ModelLabels"]

OTHER = "other"
"""The label of every model that has none of its own."""

_NAME_CHARACTERS_MAX = 1024
"""Longer than any name a server accepts; what is longer is not looked up (or remembered)."""


class ModelLabels:
    """Gives each model a label: the name its endpoint lists it under.

    At most `limit` distinct labels over the life of the object; one that was given stays, so that
    a counter does not change its name when an endpoint goes away.
    """

    def __init__(self, snapshot: Callable[[], Snapshot], limit: int = 200) -> None:
        self._snapshot = snapshot
        self._limit = limit
        self._labels: dict[str, str] = {}

    def label(self, model: str) -> str:
        """The label for a model's name in any spelling; `other` when it has none."""
        found = self._labels.get(model)
        if found is not None:
            return found
        if len(model) > _NAME_CHARACTERS_MAX:
            return OTHER
        key = canonical(model)
        found = self._labels.get(key)
        if found is not None:
            return found
        views = self._snapshot().having(key)
        if not views or len(self._labels) >= self._limit:
            return OTHER
        label = views[0].models[key].name
        self._labels[key] = label
        return label

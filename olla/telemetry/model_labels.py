"""Choose the label under which a model is counted, so that clients cannot invent labels.

Only names that an endpoint lists become labels, up to a limit. All other names count as `other`.
"""

from collections.abc import Callable

from olla.fleet.model_names import canonical
from olla.fleet.snapshot import Snapshot

__all__ = ["OTHER", "ModelLabels"]

OTHER = "other"
"""The label of every model without one."""

_NAME_CHARACTERS_MAX = 1024
"""Longer than any name that a server accepts. Longer names are neither looked up nor cached."""


class ModelLabels:
    """Gives each model a label: the name under which its endpoint lists it.

    There are at most `limit` labels over the life of the object. A label is kept, so that a counter
    does not change its name when an endpoint disappears.
    """

    def __init__(self, snapshot: Callable[[], Snapshot], limit: int = 200) -> None:
        self._snapshot = snapshot
        self._limit = limit
        self._labels: dict[str, str] = {}

    def label(self, model: str) -> str:
        """Return the label of a model's name in any spelling; `other` if it has none."""
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

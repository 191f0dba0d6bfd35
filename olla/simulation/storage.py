"""The disk of a simulated node: models by name, and blobs."""

import msgspec

from olla.simulation.model_catalogue import ModelSpec, full_name

__all__ = ["Storage", "Stored"]


class Stored(msgspec.Struct, frozen=True):
    """A model on disk. `modified_at` is Unix seconds."""

    spec: ModelSpec
    modified_at: float


class Storage:
    """Models by name, compared without case, and blobs (of which it keeps only the sizes)."""

    def __init__(self) -> None:
        self._models: dict[str, Stored] = {}
        self.blobs: dict[str, int] = {}
        """Bytes of each blob, by digest."""

    def add(self, spec: ModelSpec, modified_at: float) -> None:
        """Have a model under its name."""
        self._models[full_name(spec.name).lower()] = Stored(spec, modified_at)

    def stored(self, name: str) -> Stored | None:
        """The model of that name, with what is known of its file."""
        return self._models.get(full_name(name).lower())

    def find(self, name: str) -> ModelSpec | None:
        """The model of that name."""
        stored = self.stored(name)
        return stored.spec if stored is not None else None

    def copy(self, name: str, to: str, modified_at: float) -> bool:
        """Have a model under another name as well; False when there is none."""
        spec = self.find(name)
        if spec is None:
            return False
        self.add(msgspec.structs.replace(spec, name=full_name(to)), modified_at)
        return True

    def delete(self, name: str) -> ModelSpec | None:
        """Have a model no longer under that name."""
        stored = self._models.pop(full_name(name).lower(), None)
        return stored.spec if stored is not None else None

    def all(self) -> list[Stored]:
        """All models, the newest first."""
        return sorted(self._models.values(), key=lambda each: each.modified_at, reverse=True)

"""What a caller may see of the fleet: which endpoints, which models, and whether addresses.

Every surface that names endpoints or models asks this: lists, states, metrics, explanations. It
says what may be shown, not what may be done; see `caller` for that.
"""

import re
from collections.abc import Iterable

import msgspec

from olla.access.caller import Caller
from olla.dialects.dialect import Right
from olla.fleet.model_names import canonical, display
from olla.fleet.snapshot import EndpointView

__all__ = ["EVERYTHING", "Visibility"]


class Visibility(msgspec.Struct, frozen=True):
    """What may be shown.

    `endpoints` are the names of those that may be seen and `models` matches the names (as Ollama
    shows them, in lower case) of those that may; None for all. Without `lists` no model may be
    named, and without `addresses` no endpoint's URL, host or port.
    """

    endpoints: frozenset[str] | None = None
    models: re.Pattern[str] | None = None
    lists: bool = True
    addresses: bool = False

    @classmethod
    def of(cls, caller: Caller) -> "Visibility":
        """What a caller may see: its key's endpoints and models, names of models with the right
        `list`, addresses with the right `admin`."""
        rights = caller.rights
        return cls(caller.endpoints, caller.models, Right.LIST in rights, Right.ADMIN in rights)

    @property
    def all_models(self) -> bool:
        """Whether all models may be seen."""
        return self.models is None and self.lists

    @property
    def everything(self) -> bool:
        """Whether all endpoints and models may be seen."""
        return self.endpoints is None and self.all_models

    def sees_endpoint(self, name: str) -> bool:
        """Whether an endpoint may be seen."""
        return self.endpoints is None or name in self.endpoints

    def sees_model(self, name: str) -> bool:
        """Whether a model may be seen, under any spelling of its name."""
        return self.all_models or (self.lists and self.matches(display(canonical(name))))

    def matches(self, shown: str) -> bool:
        """The same for a name as Ollama shows it, in lower case, where names may be seen."""
        return self.models is None or self.models.match(shown) is not None

    def views(self, views: Iterable[EndpointView]) -> list[EndpointView]:
        """Those of the endpoints that may be seen."""
        return [view for view in views if self.sees_endpoint(view.spec.name)]


EVERYTHING = Visibility(addresses=True)
"""Nothing is hidden: for logs."""

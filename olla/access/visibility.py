"""Decide which endpoints, models and addresses a caller may see.

Every surface that names endpoints or models checks this: lists, status, metrics, explanations. It
covers what may be shown; `caller` covers what may be done.
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
    """What may be shown to a caller.

    `endpoints` are the names of the visible endpoints. `models` matches the names of the visible
    models, as Ollama shows them and in lower case. Both are None if there is no restriction.
    Without `lists` no model is named; without `addresses` no URL, host or port of an endpoint.
    """

    endpoints: frozenset[str] | None = None
    models: re.Pattern[str] | None = None
    lists: bool = True
    addresses: bool = False

    @classmethod
    def of(cls, caller: Caller) -> "Visibility":
        """Return what a caller may see: the endpoints and models of its key, models only with the
        right `list`, addresses only with the right `admin`."""
        rights = caller.rights
        return cls(caller.endpoints, caller.models, Right.LIST in rights, Right.ADMIN in rights)

    @property
    def all_models(self) -> bool:
        """Whether all models are visible."""
        return self.models is None and self.lists

    @property
    def everything(self) -> bool:
        """Whether all endpoints and models are visible."""
        return self.endpoints is None and self.all_models

    def sees_endpoint(self, name: str) -> bool:
        """Whether an endpoint is visible."""
        return self.endpoints is None or name in self.endpoints

    def sees_model(self, name: str) -> bool:
        """Whether a model is visible, in any spelling of its name."""
        return self.all_models or (self.lists and self.matches(display(canonical(name))))

    def matches(self, shown: str) -> bool:
        """Whether a model is visible whose name is in Ollama's form and lower case. `lists` is not
        checked."""
        return self.models is None or self.models.match(shown) is not None

    def views(self, views: Iterable[EndpointView]) -> list[EndpointView]:
        """Return the visible endpoints."""
        return [view for view in views if self.sees_endpoint(view.spec.name)]


EVERYTHING = Visibility(addresses=True)
"""No restriction, for logs."""

"""Who has to do with an exchange from outside: its host, and the connection it is carried by."""

from typing import TYPE_CHECKING, Protocol

from olla.failures import Failure
from olla.record import RequestRecord

if TYPE_CHECKING:
    from olla.proxy.exchange import Exchange

__all__ = ["Abandoned", "Carrier", "Host"]


class Host(Protocol):
    """Whoever began an exchange."""

    def over(self, exchange: "Exchange") -> None:
        """Nothing more will be written; the record is complete. Called once."""
        ...

    def crashed(self, record: RequestRecord, error: Exception) -> None:
        """Olla's own code has failed at it; the client is told so."""
        ...


class Abandoned(Protocol):
    """Something that has to know when its client is gone."""

    def abandon(self, failure: Failure) -> None:
        """The client is gone; `failure` says how."""
        ...

    def half_closed(self) -> None:
        """The client has closed its side of the connection, or all of it: nobody can tell. What
        the router answers itself can still be written."""
        ...


class Carrier(Protocol):
    """A client's connection, as far as it tells what becomes of the client."""

    def carries(self, exchange: Abandoned) -> None:
        """An exchange begins: it is told from now on."""
        ...

"""Hold the requests that wait in olla: their order, and the instance that each waits for.

The only owner of both facts. A ticket waits for exactly one instance from `join` to `leave`, and
only this module writes that instance's `waiting`. Before, tickets that had left once stayed in
`waiting`, and idle endpoints were priced as busy. The dispatcher chooses the instance and decides
when a request may start.
"""

import bisect
from collections.abc import Sequence

from olla.admission.fairness import FairShares
from olla.admission.queue_types import Ticket
from olla.fleet.instance import ModelInstance

__all__ = ["Queue"]


def _order(ticket: Ticket) -> float:
    return ticket.order


class Queue:
    """Tickets by their order, lowest first. All times are monotonic seconds."""

    __slots__ = ("_tickets", "_waiting", "shares")

    def __init__(self) -> None:
        self.shares = FairShares()
        """The seconds of service that each caller has queued and has had."""
        self._tickets: list[Ticket] = []
        self._waiting: dict[ModelInstance, list[Ticket]] = {}
        """The same tickets by the instance that each waits for. No list is empty."""

    @property
    def tickets(self) -> Sequence[Ticket]:
        """All tickets, in their order. A live view of the queue."""
        return self._tickets

    def join(self, ticket: Ticket, now: float) -> None:
        """Add a ticket, which waits for its instance."""
        bisect.insort(self._tickets, ticket, key=_order)
        self._stand(ticket)
        self.shares.waits(ticket.features.caller, ticket.work, now)

    def assign(self, ticket: Ticket, instance: ModelInstance, model: str) -> None:
        """Assign a ticket to an instance, which lists the model under this name."""
        ticket.model = model
        if instance is not ticket.instance:
            self._step_aside(ticket)
            ticket.instance = instance
            ticket.loaded_for = False
            self._stand(ticket)

    def leave(self, ticket: Ticket, now: float) -> bool:
        """Remove a ticket; return False if it is not in the queue."""
        waiting = self._waiting.get(ticket.instance)
        if waiting is None or ticket not in waiting:
            return False
        self._tickets.remove(ticket)
        self._step_aside(ticket)
        self.shares.leaves(ticket.features.caller, ticket.work, now)
        return True

    def late(self, now: float) -> list[Ticket]:
        """Return the tickets that have reached their time limit."""
        return [ticket for ticket in self._tickets if ticket.deadline <= now]

    def on(self, instance: ModelInstance) -> Sequence[Ticket]:
        """Return the tickets that wait for an instance, in their order."""
        return self._waiting.get(instance, ())

    def _stand(self, ticket: Ticket) -> None:
        instance = ticket.instance
        waiting = self._waiting.get(instance)
        if waiting is None:
            instance.waiting = self._waiting[instance] = [ticket]
        else:
            bisect.insort(waiting, ticket, key=_order)

    def _step_aside(self, ticket: Ticket) -> None:
        instance = ticket.instance
        waiting = self._waiting[instance]
        waiting.remove(ticket)
        if not waiting:
            del self._waiting[instance]
            instance.waiting = ()

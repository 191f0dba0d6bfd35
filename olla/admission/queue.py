"""The requests that wait in olla: in which order, and for which line each of them.

The only owner of both facts. A ticket waits for exactly one line from `join` to `leave`, and that
line's `waiting` shows it; nothing else writes either side. Tickets that had left once stayed in
`waiting`, and idle endpoints were priced as busy. Which line is best, and when a request may start,
is the dispatcher's business.
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
        """What each caller waits for and has had, in seconds of service."""
        self._tickets: list[Ticket] = []
        self._waiting: dict[ModelInstance, list[Ticket]] = {}
        """The same tickets, by the line that each of them waits for. No list is empty."""

    @property
    def tickets(self) -> Sequence[Ticket]:
        """All that wait, in their order. Changes with the queue."""
        return self._tickets

    def join(self, ticket: Ticket, now: float) -> None:
        """Let a ticket wait for its line."""
        bisect.insort(self._tickets, ticket, key=_order)
        self._stand(ticket)
        self.shares.waits(ticket.features.caller, ticket.work, now)

    def assign(self, ticket: Ticket, instance: ModelInstance, model: str) -> None:
        """Let a ticket wait for a line, which lists the model under this name."""
        ticket.model = model
        if instance is not ticket.instance:
            self._step_aside(ticket)
            ticket.instance = instance
            ticket.loaded_for = False
            self._stand(ticket)

    def leave(self, ticket: Ticket, now: float) -> bool:
        """Take a ticket out, whatever the reason; False when it does not wait any more."""
        waiting = self._waiting.get(ticket.instance)
        if waiting is None or ticket not in waiting:
            return False
        self._tickets.remove(ticket)
        self._step_aside(ticket)
        self.shares.leaves(ticket.features.caller, ticket.work, now)
        return True

    def late(self, now: float) -> list[Ticket]:
        """Tickets that have waited for as long as they may."""
        return [ticket for ticket in self._tickets if ticket.deadline <= now]

    def on(self, instance: ModelInstance) -> Sequence[Ticket]:
        """The tickets that wait for a line, in their order."""
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

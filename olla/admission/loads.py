"""Decide which loads olla itself starts for queued requests, and when it cancels them.

A node loads one model at a time. The first request in order whose instance is not ready gets its
load started, or busy models are drained for it. The loads for other requests are recorded on the
twin, so that prices include them. Demand is computed in every round over the queue. `queue` owns
the assignment of requests, and the shell sends the load requests.
"""

from math import inf

from olla.admission.prewarm import propose
from olla.admission.queue_types import AbandonLoad, BeginLoad, Ticket
from olla.failures import Failure
from olla.fleet.instance import ModelInstance, ModelLoad
from olla.fleet.twin import Twin
from olla.fleet.twins import Twins
from olla.routing.decision import RoutingOptions

__all__ = ["Loads"]

_PREWARM_INTERVAL = 2.0
"""Seconds between two checks whether another copy of a model would pay."""


class Loads:
    """The loads in progress, and those that queued requests need. Times are monotonic seconds."""

    __slots__ = ("_draining", "_owned", "_prewarmed", "_prewarmed_at", "_wanting")

    def __init__(self) -> None:
        self._owned: dict[ModelLoad, float | None] = {}
        """Loads in progress, and since when no request waits for them."""
        self._prewarmed: set[ModelLoad] = set()
        """Those that were started before a request waited."""
        self._prewarmed_at = -inf
        self._wanting: list[Twin] = []
        self._draining: list[ModelInstance] = []

    def __len__(self) -> int:
        return len(self._owned)

    def reset_demand(self) -> None:
        """Start a round with no known demand for loads."""
        for twin in self._wanting:
            twin.wanted.clear()
        for instance in self._draining:
            instance.draining = False
        self._wanting.clear()
        self._draining.clear()

    def demand(self, ticket: Ticket, now: float) -> BeginLoad | None:
        """Record that a queued request needs its instance loaded. Returns the load if it starts
        now."""
        instance = ticket.instance
        twin = instance.twin
        loading = twin.loading
        if loading is not None and loading.instance is instance:
            ticket.loaded_for = True
            return None
        if instance in twin.wanted:
            return None
        options = ticket.features.load_options
        if not twin.wanted and loading is None and not twin.pending:
            victims = twin.victims(instance, options)
            if not any(victim.in_flight for victim in victims):
                ticket.loaded_for = True
                return self._begin(
                    BeginLoad(twin.start_load(instance, options, now), ticket.features)
                )
            # Nothing new starts on them: whatever comes before this request has started already.
            for victim in victims:
                victim.draining = True
            self._draining.extend(victims)
        if not twin.wanted:
            self._wanting.append(twin)
        twin.wanted[instance] = instance.load_seconds(now)
        return None

    def prewarm_due(self, now: float) -> bool:
        """Return whether another check for prewarming is due."""
        return now - self._prewarmed_at >= _PREWARM_INTERVAL

    def prewarm(self, twins: Twins, options: RoutingOptions, now: float) -> BeginLoad | None:
        """Start to load another copy of a model if that pays, without a request that waits for it.

        Such a load does not depend on a client's patience, so `abandon` never cancels it.
        """
        if not options.prewarm:
            return None
        self._prewarmed_at = now
        proposal = propose(twins, options, now)
        if proposal is None:
            return None
        instance = proposal.instance
        loading = instance.twin.start_load(instance, proposal.options, now)
        self._prewarmed.add(loading)
        return self._begin(BeginLoad(loading, proposal.features))

    def ended(self, loading: ModelLoad, now: float, failure: Failure | None) -> bool:
        """Record the end of a load; return False if it was cancelled before."""
        if loading not in self._owned:
            return False
        self._forget(loading, now, loaded=failure is None)
        return True

    def abandon(self, now: float, grace: float) -> list[AbandonLoad]:
        """Cancel the loads for which no request has waited for `grace` seconds."""
        abandoned: list[AbandonLoad] = []
        for loading, since in [*self._owned.items()]:
            if loading.instance.waiting or loading in self._prewarmed:
                self._owned[loading] = None
                continue
            if since is None:
                self._owned[loading] = since = now
            if now - since >= grace:
                self._forget(loading, now, loaded=False)
                abandoned.append(AbandonLoad(loading))
        return abandoned

    def _begin(self, action: BeginLoad) -> BeginLoad:
        self._owned[action.loading] = None
        return action

    def _forget(self, loading: ModelLoad, now: float, *, loaded: bool) -> None:
        del self._owned[loading]
        self._prewarmed.discard(loading)
        loading.instance.twin.load_ended(loading, now, loaded=loaded)

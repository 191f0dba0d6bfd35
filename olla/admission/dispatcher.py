"""Choose an endpoint and grant a lease in one step, or queue the request.

The dispatcher never awaits. Its shell (the proxy, the simulated fleet, a state machine in the
tests) reports events with their times, and carries out the actions that it returns. A request that
can start gets a lease at once. Another is assigned to the instance where it is expected to start
soonest, and waits in olla. After every change all queued requests are priced again, in their order,
and move if another instance is now clearly sooner.

The dispatcher owns the twins and the leases. `queue` owns the order and assignment of tickets, and
`loads` decides which loads are needed.
"""

from collections.abc import Sequence
from math import inf
from typing import Final, assert_never

import msgspec

from olla.admission.feedback import learn
from olla.admission.loads import Loads
from olla.admission.queue import Queue
from olla.admission.queue_types import (
    Action,
    AnswerStats,
    Entered,
    Granted,
    Lease,
    LeaseError,
    Refused,
    Ticket,
)
from olla.admission.rejections import QueueLimits, queue_full, timed_out
from olla.admission.retry_budget import RetryBudget
from olla.failures import Failure
from olla.fleet.breaker import BreakerState
from olla.fleet.instance import InFlightRequest, ModelInstance, ModelLoad
from olla.fleet.snapshot import Snapshot
from olla.fleet.twins import Twins
from olla.routing.affinity import PrefixCache, with_cached
from olla.routing.candidates import exclusion, reluctance
from olla.routing.decision import (
    Choice,
    ChooseEndpoint,
    ChooseFallback,
    ChooseInstance,
    Considered,
    Decision,
    Reason,
    Refuse,
    RoutingOptions,
    decide,
    explain,
)
from olla.routing.delay import expected_delay
from olla.routing.features import Features
from olla.routing.policy import Policy

__all__ = ["Dispatcher"]

_HYSTERESIS = 0.2
"""Seconds by which another instance must be sooner before a queued request moves to it."""
_REPRICE_INTERVAL = 0.02
"""Seconds between two pricings of the whole queue, so that a long queue takes bounded time."""
_TICK = 1.0
_HALF_OPEN: Final = BreakerState.HALF_OPEN
_QUEUED: Final = Reason.QUEUED
_COLD_LOAD: Final = Reason.COLD_LOAD


class Dispatcher:
    """Grants leases and places in the queue. All times are monotonic seconds."""

    def __init__(
        self, policy: Policy, options: RoutingOptions, limits: QueueLimits | None = None
    ) -> None:
        self.policy = policy
        self.options = options
        self.limits = limits or QueueLimits()
        self.twins = Twins()
        self.retries = RetryBudget()
        self.queue = Queue()
        self._shares = self.queue.shares
        self._loads = Loads()
        self._prefixes = PrefixCache()
        self._open = 0
        self._actions: list[Action] = []
        self._priced_at = -inf

    # --- views ----------------------------------------------------------------------------------

    @property
    def leases(self) -> int:
        """Leases granted and not yet released, counted or not."""
        return self._open

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self.queue.tickets)

    @property
    def loads(self) -> int:
        """Loads in progress that olla itself started."""
        return len(self._loads)

    @property
    def quiet(self) -> bool:
        """Whether the shell has no actions to take, and no timer is pending."""
        return not (self._actions or self.queue.tickets or len(self._loads))

    def take_actions(self) -> Sequence[Action]:
        """Return the shell's next actions. Each is returned once."""
        if not self._actions:
            return ()
        actions, self._actions = self._actions, []
        return actions

    def next_tick(self, now: float) -> float | None:
        """Return when `tick` should be called next; None if no timer is pending."""
        return now + _TICK if self.queue.tickets or len(self._loads) else None

    # --- what happens ---------------------------------------------------------------------------

    def ask(
        self,
        features: Features,
        snapshot: Snapshot,
        asked_for: str,
        now: float,
        *,
        policy: Policy | None = None,
        counted: bool = True,
        asked_at: float | None = None,
    ) -> Entered:
        """Return a lease on the chosen endpoint, a place in the queue, or a refusal.

        `policy` replaces the configured one. `counted`: the request occupies a slot. `asked_at` is
        the first arrival of a request that is retried.
        """
        if snapshot is not self.twins.snapshot:
            self.changed(snapshot, now)
        if not features.tried:
            self.retries.earn()
        policy = policy or self.policy
        since = now if asked_at is None else asked_at
        if features.prefix and policy.priced:
            features = with_cached(features, self.twins, self._prefixes)
        if features.order == inf and self.queue.tickets:
            features = self._placed(features, now)
        decision = decide(features, self.twins, policy, self.options, asked_for, now)
        match decision:
            case ChooseInstance():
                if not counted or not policy.binds_late:
                    predicted = self._predicted(decision)
                    return self._grant(
                        decision, features, now, since, counted=counted, predicted=predicted
                    )
                work = decision.instance.service(features.prompt_tokens, features.output_max)
                if self._can_start(decision.instance, features, now, ready=decision.ready):
                    predicted = self._predicted(decision)
                    return self._grant(
                        decision, features, now, since, predicted=predicted, work=work
                    )
                return self._enqueue(decision, features, asked_for, now, since, work)
            case ChooseEndpoint() | ChooseFallback():
                return self._grant(decision, features, now, since, counted=counted)
            case Refuse():
                return decision
            case never:
                assert_never(never)

    def began(self, lease: Lease, now: float) -> None:
        """Record the first byte of a response."""
        flight = lease.flight
        if flight is None or flight.began is not None:
            return
        lease.choice.twin.began(flight, now)
        instance = flight.instance
        if instance is not None and lease.features.prefix:
            self._prefixes.remember(instance, lease.features.prefix)
        if self.queue.tickets:
            self._serve(now)

    def release(self, lease: Lease, now: float, answer: AnswerStats | None = None) -> None:
        """Release the lease. `answer` has the statistics of a complete response.

        Raises:
            LeaseError: it was released before.
        """
        twin = lease.choice.twin
        if lease.released:
            raise LeaseError(f"lease on {twin.name} released twice")
        lease.released = True
        self._open -= 1
        if lease.trial:
            twin.on_trial = False
        flight = lease.flight
        if flight is not None:
            if answer is not None:
                learn(flight, lease.features, answer, now)
            twin.ended(flight, now)
            if self.queue.tickets:
                self._serve(now)
            if self._loads.prewarm_due(now) and self.policy.binds_late:
                begun = self._loads.prewarm(self.twins, self.options, now)
                if begun is not None:
                    self._actions.append(begun)

    def leave(self, ticket: Ticket, now: float) -> None:
        """Remove a queued request whose client has disconnected."""
        if self.queue.leave(ticket, now):
            self._serve(now)

    def changed(self, snapshot: Snapshot, now: float) -> None:
        """Take over a change of the fleet."""
        if snapshot is not self.twins.snapshot:
            self.twins.follow(snapshot, now)
            if self.queue.tickets:
                self._serve(now, everyone=True)

    def load_ended(self, loading: ModelLoad, now: float, failure: Failure | None = None) -> None:
        """Record the end of a load that olla itself started."""
        if not self._loads.ended(loading, now, failure):
            return
        instance = loading.instance
        if failure is not None:
            refused = failure.endpoint_status is not None and failure.endpoint_status < 500
            if refused:
                instance.ownable = False  # let the client's own request find out why
            else:
                self._send_elsewhere(instance, failure)
        self._serve(now, everyone=True)

    def tick(self, now: float) -> None:
        """Apply timers: time out queued requests, and cancel unneeded loads."""
        for ticket in self.queue.late(now):
            self._refuse(ticket, timed_out(ticket.asked_for, self.limits), now)
        self._serve(now, everyone=True)

    # --- questions ------------------------------------------------------------------------------

    def could_serve(self, features: Features, snapshot: Snapshot, now: float) -> bool:
        """Return whether an endpoint can serve the request, now or later."""
        self.changed(snapshot, now)
        decision = decide(features, self.twins, self.policy, self.options, "", now)
        match decision:
            case ChooseInstance() | ChooseEndpoint() | ChooseFallback():
                return True
            case Refuse():
                return False
            case never:
                assert_never(never)

    def explained(self, features: Features, snapshot: Snapshot, now: float) -> list[Considered]:
        """Return every endpoint with its delay, term by term, or its exclusion, the best first."""
        self.changed(snapshot, now)
        if features.prefix:
            features = with_cached(features, self.twins, self._prefixes)
        return explain(features, self.twins, self.policy, self.options, now)

    # --- starting -------------------------------------------------------------------------------

    def _can_start(
        self, instance: ModelInstance, features: Features, now: float, *, ready: bool
    ) -> bool:
        """Return whether a request assigned to an instance can be sent now."""
        twin = instance.twin
        if ready:
            if instance.draining:
                return False
            count, slots = len(instance.in_flight), instance.slots
            if count < slots.limit or features.only_loads:
                return True
            if slots.may_try(count, now):
                slots.trying(count, now)
                return True
            return False
        return not instance.ownable and twin.loading is None

    def _grant(
        self,
        choice: Choice,
        features: Features,
        now: float,
        asked_at: float,
        *,
        counted: bool = True,
        predicted: float | None = None,
        work: float = 0.0,
    ) -> Lease:
        twin = choice.twin
        trial = twin.view.breaker is _HALF_OPEN
        if trial:
            twin.on_trial = True
        lease = Lease(
            choice, features, asked_at=asked_at, granted_at=now, trial=trial, predicted=predicted
        )
        self._open += 1
        if counted:
            instance = lease.instance
            if instance is not None and not work:
                work = instance.service(features.prompt_tokens, features.output_max)
            flight = InFlightRequest(
                instance, now, work, features.load_options, features.keep_alive
            )
            twin.sent(flight, now)
            lease.flight = flight
            self._shares.served(features.caller, work, now)
        return lease

    def _predicted(self, choice: ChooseInstance) -> float | None:
        """Return the expected seconds to the first token, without the charge for a lower
        priority."""
        if choice.delay is None:
            return None
        return choice.delay - self.options.spillover * self.twins.tier(choice.twin.view)

    # --- the queue ------------------------------------------------------------------------------

    def _placed(self, features: Features, now: float) -> Features:
        """Return the request with its place in the queue's order."""
        place = self._shares.place(features.caller, now)
        return msgspec.structs.replace(features, order=place)

    def _enqueue(
        self,
        choice: ChooseInstance,
        features: Features,
        asked_for: str,
        now: float,
        asked_at: float,
        work: float,
    ) -> Ticket | Refuse:
        """Return a place in the queue, unless it is full or the expected wait too long."""
        limits, instance = self.limits, choice.instance
        expected = expected_delay(instance, features, self.twins, now).own
        if features.order == inf:
            features = self._placed(features, now)
        waiting = len(self.queue.tickets)
        if waiting >= limits.max_queue or expected > limits.timeout:
            return queue_full(waiting, expected, limits)
        ticket = Ticket(
            features,
            asked_for,
            instance,
            choice.model,
            work=work,
            asked_at=asked_at,
            deadline=asked_at + limits.timeout,
            predicted=expected,
        )
        self.queue.join(ticket, now)
        if not choice.ready or instance.draining:
            self._demand_load(ticket, now)
        return ticket

    def _serve(self, now: float, *, everyone: bool = False) -> None:
        """Go through the queue, and cancel loads that it has not needed for long."""
        self._round(now, everyone=everyone)
        if len(self._loads):
            abandoned = self._loads.abandon(now, self.limits.load_grace)
            if abandoned:
                self._actions.extend(abandoned)
                self._round(now)  # the node's next load can begin

    def _round(self, now: float, *, everyone: bool = False) -> None:
        """Price the queued requests again, in their order, and start those that can start.

        Each ticket is granted, refused or left in the queue. `everyone`: more than load has
        changed, so a ticket may no longer be servable where it waits.
        """
        self._loads.reset_demand()
        if not self.queue.tickets:
            return
        reprice = 0
        if everyone or now - self._priced_at >= _REPRICE_INTERVAL:
            reprice = self.limits.repriced
            self._priced_at = now
        for place, ticket in enumerate([*self.queue.tickets]):
            if place >= reprice and not (everyone and not self._stands(ticket)):
                self._start_or_wait(ticket, None, now)
                continue
            decision = self._again(ticket, now)
            match decision:
                case ChooseInstance():
                    self.queue.assign(ticket, decision.instance, decision.model)
                    self._start_or_wait(ticket, decision.delay, now)
                case ChooseEndpoint() | ChooseFallback():
                    self._start(ticket, decision, now)
                case Refuse():
                    self._refuse(ticket, decision, now)
                case never:
                    assert_never(never)

    def _stands(self, ticket: Ticket) -> bool:
        """Return whether the request can still be served where it waits."""
        instance = ticket.instance
        twin = instance.twin
        return (
            self.twins.by_name.get(twin.name) is twin
            and twin.names.get(ticket.model) is instance
            and exclusion(ticket.features, twin.view, self.options.embedding_endpoints) is None
        )

    def _again(self, ticket: Ticket, now: float) -> Decision:
        """Return the best instance for a queued request now."""
        decision = decide(
            ticket.features, self.twins, self.policy, self.options, ticket.asked_for, now
        )
        match decision:
            case ChooseInstance():
                if decision.instance is ticket.instance or decision.delay is None:
                    return decision
                here = self._here(ticket, now)
                if here is None or here.delay is None:
                    return decision
                return here if here.delay <= decision.delay + _HYSTERESIS else decision
            case ChooseEndpoint() | ChooseFallback():
                return decision
            case Refuse():
                failure = ticket.failure
                return decision if failure is None else Refuse(failure, decision.reason)
            case never:
                assert_never(never)

    def _here(self, ticket: Ticket, now: float) -> ChooseInstance | None:
        """Return the choice of the instance that a request waits for; None if it should leave."""
        features = msgspec.structs.replace(
            ticket.features, pinned=ticket.instance.twin.name, models=(ticket.model,)
        )
        decision = decide(features, self.twins, self.policy, self.options, "", now)
        match decision:
            case ChooseInstance():
                reluctant = reluctance(decision.twin, decision.instance, now) is not None
                return None if reluctant else decision
            case ChooseEndpoint() | ChooseFallback() | Refuse():
                return None
            case never:
                assert_never(never)

    def _start_or_wait(self, ticket: Ticket, delay: float | None, now: float) -> None:
        """Start a request on the instance that it waits for, if possible."""
        instance, features = ticket.instance, ticket.features
        ready = instance.ready(features.load_options, now)
        if self._can_start(instance, features, now, ready=ready):
            reason = _COLD_LOAD if ticket.loaded_for else _QUEUED
            choice = ChooseInstance(instance.twin, instance, ticket.model, reason, delay, ready)
            self._start(ticket, choice, now)
        elif not ready or instance.draining:
            self._demand_load(ticket, now)

    def _start(self, ticket: Ticket, choice: Choice, now: float) -> None:
        self.queue.leave(ticket, now)
        lease = self._grant(
            choice, ticket.features, now, ticket.asked_at, predicted=ticket.predicted
        )
        self._actions.append(Granted(ticket, lease))

    def _demand_load(self, ticket: Ticket, now: float) -> None:
        begun = self._loads.demand(ticket, now)
        if begun is not None:
            self._actions.append(begun)

    def _send_elsewhere(self, instance: ModelInstance, failure: Failure) -> None:
        """Move the requests that waited for a failed load to other endpoints."""
        for ticket in self.queue.on(instance):
            tried = (*ticket.features.tried, instance.twin.name)
            ticket.features = msgspec.structs.replace(ticket.features, tried=tried)
            ticket.failure = failure

    def _refuse(self, ticket: Ticket, refusal: Refuse, now: float) -> None:
        self.queue.leave(ticket, now)
        self._actions.append(Refused(ticket, refusal))

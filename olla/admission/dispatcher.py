"""When a request may start: choice and lease in one step, or a place in the queue.

Owns the twins, the leases, the queue and the loads. Never awaits: a shell (the proxy, the
simulated fleet, a state machine in the tests) tells what happens and when, and does what comes
back as actions. A request that can start somewhere now gets its lease at once. One that cannot is
assigned to the line where it is expected to start soonest, and stays in olla: on every change all
that wait are priced again, in their order, and move when another line is now clearly sooner.
"""

import bisect
from collections.abc import Sequence
from math import inf
from typing import Final

import msgspec

from olla.admission.fairness import FairShares
from olla.admission.learning import learn
from olla.admission.placement import propose
from olla.admission.refusals import QueueLimits, queue_full, timed_out
from olla.admission.retries import RetryBudget
from olla.admission.tickets import (
    AbandonLoad,
    Action,
    Answer,
    BeginLoad,
    Granted,
    Lease,
    LeaseError,
    Refused,
    Ticket,
)
from olla.failures import Failure
from olla.fleet.breaker import BreakerState
from olla.fleet.line import Flight, Line, Loading
from olla.fleet.snapshot import Snapshot
from olla.fleet.twin import Twin
from olla.fleet.twins import Twins
from olla.routing.affinity import PrefixCache, with_cached
from olla.routing.candidates import reluctance
from olla.routing.decision import (
    Choose,
    Considered,
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
"""Seconds by which another line must be sooner before a waiting request moves to it."""
_REPRICED_MAX = 64
"""How many waiting requests are priced again at a change; the others stay where they are."""
_REPRICE_INTERVAL = 0.02
"""Seconds between two pricings of all that wait, so that a long queue costs bounded time."""
_TICK = 1.0
_PLACEMENT_INTERVAL = 2.0
"""Seconds between two looks at whether one more copy of a model would pay."""
_HALF_OPEN: Final = BreakerState.HALF_OPEN


class Dispatcher:
    """Gives out leases and places in the queue. All times are monotonic seconds."""

    def __init__(
        self, policy: Policy, options: RoutingOptions, limits: QueueLimits | None = None
    ) -> None:
        self.policy = policy
        self.options = options
        self.limits = limits or QueueLimits()
        self.twins = Twins()
        self.retries = RetryBudget()
        self._shares = FairShares()
        self._prefixes = PrefixCache()
        self._tickets: list[Ticket] = []
        self._open = 0
        self._actions: list[Action] = []
        self._owned: dict[Loading, bool] = {}
        self._priced_at = -inf
        self._placed_at = -inf

    # --- views ----------------------------------------------------------------------------------

    @property
    def leases(self) -> int:
        """Leases given out and not yet released, counted or not."""
        return self._open

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._tickets)

    @property
    def loads(self) -> int:
        """Loads of olla's own under way."""
        return len(self._owned)

    @property
    def quiet(self) -> bool:
        """Whether the shell has nothing to do and nothing waits for time to pass."""
        return not (self._actions or self._tickets or self._owned)

    def take_actions(self) -> Sequence[Action]:
        """What the shell has to do now; each is given out once."""
        if not self._actions:
            return ()
        actions, self._actions = self._actions, []
        return actions

    def next_tick(self, now: float) -> float | None:
        """When `tick` should be called next; None while nothing waits for time to pass."""
        return now + _TICK if self._tickets or self._owned else None

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
    ) -> Lease | Ticket | Refuse:
        """A lease on the endpoint the request goes to now, a place in the queue, or a refusal.

        `policy` stands in for the configured one; `counted` says whether it occupies a slot;
        `asked_at` is when it came first, for one that is tried again.
        """
        if snapshot is not self.twins.snapshot:
            self.changed(snapshot, now)
        if not features.tried:
            self.retries.earn()
        policy = policy or self.policy
        since = now if asked_at is None else asked_at
        if features.prefix and policy.priced:
            features = with_cached(features, self.twins, self._prefixes)
        if features.order == inf and self._tickets:
            place = self._shares.place(features.caller, now)
            features = msgspec.structs.replace(features, order=place)
        decision = decide(features, self.twins, policy, self.options, asked_for, now)
        if isinstance(decision, Refuse):
            return decision
        line = decision.line
        if not counted or line is None or not policy.binds_late:
            return self._grant(decision, features, now, since, counted=counted)
        work = line.service(features.prompt_tokens, features.output_max)
        if self._can_start(line, features, now, ready=decision.ready):
            return self._grant(decision, features, now, since, work=work)
        expected = expected_delay(line, features, self.twins, now).own
        if features.order == inf:
            place = self._shares.place(features.caller, now)
            features = msgspec.structs.replace(features, order=place)
        if len(self._tickets) >= self.limits.max_queue or expected > self.limits.timeout:
            return queue_full(len(self._tickets), expected, self.limits)
        ticket = Ticket(
            features,
            asked_for,
            line,
            work=work,
            asked_at=since,
            deadline=since + self.limits.timeout,
            predicted=expected,
        )
        bisect.insort(self._tickets, ticket, key=lambda each: each.order)
        self._shares.waits(features.caller, work, now)
        self._assign(ticket, line, now)
        return ticket

    def began(self, lease: Lease, now: float) -> None:
        """The first byte of the answer came."""
        flight = lease.flight
        if flight is None or flight.began is not None:
            return
        lease.choice.twin.began(flight, now)
        line = flight.line
        if line is not None and lease.features.prefix:
            self._prefixes.remember(line, lease.features.prefix)
        if self._tickets:
            self._serve(now)

    def release(self, lease: Lease, now: float, answer: Answer | None = None) -> None:
        """Give the slot back. `answer` is what there is to learn from a complete one.

        Raises:
            LeaseError: it was given back before.
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
            if self._tickets:
                self._serve(now)
            if now - self._placed_at >= _PLACEMENT_INTERVAL:
                self._place_copies(now)

    def leave(self, ticket: Ticket, now: float) -> None:
        """The client of a waiting request has gone."""
        if ticket in self._tickets:
            self._tickets.remove(ticket)
            self._shares.leaves(ticket.features.caller, ticket.work, now)
            self._serve(now)

    def changed(self, snapshot: Snapshot, now: float) -> None:
        """Something is new of the fleet."""
        if snapshot is not self.twins.snapshot:
            self.twins.follow(snapshot, now)
            if self._tickets:
                self._serve(now, everyone=True)

    def load_ended(self, loading: Loading, now: float, failure: Failure | None = None) -> None:
        """A load of olla's own is done, or failed."""
        if self._owned.pop(loading, None) is None:
            return
        line = loading.line
        line.twin.load_ended(loading, now, loaded=failure is None)
        if failure is not None:
            refused = failure.endpoint_status is not None and failure.endpoint_status < 500
            if refused:
                line.ownable = False  # let the client's own request find out why
            else:
                self._send_elsewhere(line, failure)
        self._serve(now, everyone=True)

    def tick(self, now: float) -> None:
        """Time has passed: some have waited too long, some loads are wanted no more."""
        late = [each for each in self._tickets if each.deadline <= now]
        for ticket in late:
            self._tickets.remove(ticket)
            self._refuse(ticket, timed_out(ticket.asked_for, self.limits), now)
        self._serve(now, everyone=True)
        for loading in [*self._owned]:
            if loading.line.waiting:
                loading.unwanted_since = None
            elif loading.unwanted_since is None:
                loading.unwanted_since = now
            elif now - loading.unwanted_since >= self.limits.load_grace:
                del self._owned[loading]
                loading.line.twin.load_ended(loading, now, loaded=False)
                self._actions.append(AbandonLoad(loading))

    # --- questions ------------------------------------------------------------------------------

    def could_serve(self, features: Features, snapshot: Snapshot, now: float) -> bool:
        """Whether some endpoint could serve the request, now or later."""
        self.changed(snapshot, now)
        decision = decide(features, self.twins, self.policy, self.options, "", now)
        return not isinstance(decision, Refuse)

    def explained(self, features: Features, snapshot: Snapshot, now: float) -> list[Considered]:
        """Every endpoint with its delay, term by term, or why it is none: best first."""
        self.changed(snapshot, now)
        if features.prefix:
            features = with_cached(features, self.twins, self._prefixes)
        return explain(features, self.twins, self.policy, self.options, now)

    # --- starting -------------------------------------------------------------------------------

    def _can_start(self, line: Line, features: Features, now: float, *, ready: bool) -> bool:
        """Whether a request assigned to a line can be sent now."""
        twin = line.twin
        if ready:
            if line.draining:
                return False
            count, slots = len(line.flights), line.slots
            if count < slots.limit or features.only_loads:
                return True
            if slots.may_try(count, now):
                slots.trying(count, now)
                return True
            return False
        return not line.ownable and twin.loading is None

    def _grant(
        self,
        choice: Choose,
        features: Features,
        now: float,
        asked_at: float,
        *,
        counted: bool = True,
        predicted: float | None = None,
        work: float | None = None,
    ) -> Lease:
        twin, line = choice.twin, choice.line
        flight = None
        if counted:
            if work is None and line is not None:
                work = line.service(features.prompt_tokens, features.output_max)
            work = work or 0.0
            flight = Flight(line, now, work, features.load_options, features.keep_alive)
            twin.sent(flight, now)
            self._shares.served(features.caller, work, now)
        if predicted is None and choice.delay is not None:
            predicted = choice.delay - self.options.spillover * self.twins.tier(choice.view)
        trial = choice.view.breaker is _HALF_OPEN
        if trial:
            twin.on_trial = True
        self._open += 1
        return Lease(
            choice,
            features,
            flight,
            asked_at=asked_at,
            granted_at=now,
            trial=trial,
            predicted=predicted,
        )

    # --- the queue ------------------------------------------------------------------------------

    def _serve(self, now: float, *, everyone: bool = False) -> None:
        """Price those who wait again, in their order, and start what can start."""
        if not self._tickets:
            return
        for twin in self.twins.by_name.values():
            twin.wanted.clear()
        for ticket in self._tickets:
            ticket.line.waiting.clear()
            for line in ticket.line.twin.residents.values():
                line.draining = False
        reprice = 0
        if everyone or now - self._priced_at >= _REPRICE_INTERVAL:
            reprice = _REPRICED_MAX
            self._priced_at = now
        left: list[Ticket] = []
        for place, ticket in enumerate(self._tickets):
            choice = self._place(ticket, now, reprice=place < reprice)
            if isinstance(choice, Refuse):
                self._refuse(ticket, choice, now)
            elif choice.line is not None and self._can_start(
                choice.line,
                ticket.features,
                now,
                ready=choice.line.ready(ticket.features.load_options, now),
            ):
                self._shares.leaves(ticket.features.caller, ticket.work, now)
                lease = self._grant(
                    choice, ticket.features, now, ticket.asked_at, predicted=ticket.predicted
                )
                self._actions.append(Granted(ticket, lease))
            elif choice.line is not None:
                self._assign(ticket, choice.line, now)
                left.append(ticket)
        self._tickets = left

    def _place(self, ticket: Ticket, now: float, *, reprice: bool) -> Choose | Refuse:
        """Where a waiting request is best off now."""
        line, features = ticket.line, ticket.features
        stays = Choose(line.twin, line, features.models[0], Reason.QUEUED)
        if not reprice and self.twins.by_name.get(line.twin.name) is line.twin:
            return stays
        best = decide(features, self.twins, self.policy, self.options, ticket.asked_for, now)
        if isinstance(best, Refuse):
            if ticket.failure is not None:
                return Refuse(ticket.failure, best.reason)
            return best
        reason = Reason.COLD_LOAD if ticket.loaded_for else Reason.QUEUED
        if best.line is not line and best.line is not None and best.delay is not None:
            here = self._still(ticket, now)
            if here is not None and here <= best.delay + _HYSTERESIS:
                best = msgspec.structs.replace(stays, delay=here)
            else:
                ticket.loaded_for = False
                reason = Reason.QUEUED
        return msgspec.structs.replace(best, reason=reason)

    def _still(self, ticket: Ticket, now: float) -> float | None:
        """The delay on the line a request is assigned to; None when it should not stay there."""
        if reluctance(ticket.line.twin, ticket.line, now) is not None:
            return None
        features = msgspec.structs.replace(ticket.features, pinned=ticket.line.twin.name)
        here = decide(features, self.twins, self.policy, self.options, "", now)
        return None if isinstance(here, Refuse) else here.delay

    def _assign(self, ticket: Ticket, line: Line, now: float) -> None:
        """Let a request wait for a line, and see to the load it needs."""
        ticket.line = line
        line.waiting.append(ticket)
        features = ticket.features
        if line.ready(features.load_options, now) and not line.draining:
            return
        twin = line.twin
        loading = twin.loading
        if loading is not None and loading.line is line:
            ticket.loaded_for = True
        elif line not in twin.wanted:
            self._want_load(ticket, line, twin, now)

    def _want_load(self, ticket: Ticket, line: Line, twin: Twin, now: float) -> None:
        first = not twin.wanted and twin.loading is None and not twin.pending
        if not first:
            twin.wanted[line] = line.load_seconds(now)
            return
        options = ticket.features.load_options
        victims = twin.victims(line, options)
        if any(victim.flights for victim in victims):
            # Nothing new starts on them: whoever comes before this request has started already.
            for victim in victims:
                victim.draining = True
            twin.wanted[line] = line.load_seconds(now)
            return
        loading = twin.start_load(line, options, now)
        self._owned[loading] = True
        ticket.loaded_for = True
        self._actions.append(BeginLoad(loading, ticket.features))

    def _place_copies(self, now: float) -> None:
        """Load one more copy of a model where that pays, with nobody waiting for it."""
        if not (self.options.prewarm and self.policy.binds_late):
            return
        self._placed_at = now
        proposal = propose(self.twins, self.options, now)
        if proposal is None:
            return
        line = proposal.line
        loading = line.twin.start_load(line, proposal.options, now)
        self._owned[loading] = True
        self._actions.append(BeginLoad(loading, proposal.features))

    def _send_elsewhere(self, line: Line, failure: Failure) -> None:
        """A load failed: whoever waits for it is not served by that endpoint."""
        for ticket in self._tickets:
            if ticket.line is line:
                tried = (*ticket.features.tried, line.twin.name)
                ticket.features = msgspec.structs.replace(ticket.features, tried=tried)
                ticket.failure = failure

    # --- refusing -------------------------------------------------------------------------------

    def _refuse(self, ticket: Ticket, refusal: Refuse, now: float) -> None:
        self._shares.leaves(ticket.features.caller, ticket.work, now)
        self._actions.append(Refused(ticket, refusal))

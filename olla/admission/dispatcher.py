"""Choice and lease in one step.

Owns what is in flight. Never awaits: the shells (the proxy; a state machine in the tests) ask,
do what they are told, and release.
"""

import msgspec

from olla.fleet.breaker import BreakerState
from olla.fleet.load import Load
from olla.fleet.snapshot import Snapshot
from olla.routing.candidates import Features
from olla.routing.decision import Choose, Refuse, RoutingOptions, decide
from olla.routing.policy import Policy

__all__ = ["Dispatcher", "Lease", "LeaseError"]


class LeaseError(Exception):
    """A lease was released twice: the count of what is in flight would have gone wrong."""


class Lease(msgspec.Struct):
    """The right to one slot of an endpoint, from `Dispatcher.ask` to `Dispatcher.release`.

    `counted` is False for operations that occupy no slot; `trial` is True when it tries out an
    endpoint whose breaker is half-open.
    """

    choice: Choose
    counted: bool
    trial: bool = False
    released: bool = False


class Dispatcher:
    """Gives out leases, and counts them."""

    def __init__(self, policy: Policy, options: RoutingOptions) -> None:
        self.policy = policy
        self.options = options
        self.load = Load()
        self._open = 0

    @property
    def leases(self) -> int:
        """Leases given out and not yet released, counted or not."""
        return self._open

    def ask(
        self,
        features: Features,
        snapshot: Snapshot,
        asked_for: str,
        now: float,
        *,
        policy: Policy | None = None,
        counted: bool = True,
    ) -> Lease | Refuse:
        """A lease on the endpoint the request goes to now, or a refusal.

        `policy` stands in for the configured one; `counted` says whether it occupies a slot.
        """
        decision = decide(
            features, snapshot, self.load, policy or self.policy, self.options, asked_for, now
        )
        if isinstance(decision, Refuse):
            return decision
        if counted:
            self.load.add(decision.view.name, decision.model)
        trial = decision.view.breaker is BreakerState.HALF_OPEN
        if trial:
            self.load.begin_trial(decision.view.name)
        self._open += 1
        return Lease(decision, counted, trial)

    def release(self, lease: Lease) -> None:
        """Give the slot back.

        Raises:
            LeaseError: it was given back before.
        """
        if lease.released:
            raise LeaseError(f"lease on {lease.choice.view.name} released twice")
        lease.released = True
        self._open -= 1
        if lease.trial:
            self.load.end_trial(lease.choice.view.name)
        if lease.counted:
            self.load.remove(lease.choice.view.name, lease.choice.model)

"""Leases and counts agree under any interleaving."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from olla.admission.dispatcher import Dispatcher
from olla.admission.queue_types import Lease, LeaseError
from olla.fleet.health import Health
from olla.fleet.snapshot import Snapshot
from olla.routing.decision import Refuse, RoutingOptions
from olla.routing.policies import POLICIES
from tests.views import features, view

NAMES = ("a", "b", "c")


class Leases(RuleBasedStateMachine):
    """Requests come and end while endpoints come and go."""

    held = Bundle("held")
    done = Bundle("done")

    def __init__(self) -> None:
        super().__init__()
        self.dispatcher = Dispatcher(POLICIES["loaded-first"], RoutingOptions())
        self.health = dict.fromkeys(NAMES, Health.HEALTHY)
        self.open: list[Lease] = []
        self.ticket = 0

    def snapshot(self) -> Snapshot:
        """The fleet as it is now."""
        return Snapshot.of(
            view(name, at, health=self.health[name]) for at, name in enumerate(NAMES)
        )

    @rule(name=st.sampled_from(NAMES), health=st.sampled_from(list(Health)))
    def change(self, name: str, health: Health) -> None:
        """An endpoint changes its state under running requests."""
        self.health[name] = health

    @rule(target=held, counted=st.booleans(), tried=st.sets(st.sampled_from(NAMES)))
    def ask(self, counted: bool, tried: set[str]) -> Lease | None:
        """A request arrives."""
        self.ticket += 1
        outcome = self.dispatcher.ask(
            features(ticket=self.ticket, tried=tuple(tried)),
            self.snapshot(),
            "m",
            0.0,
            counted=counted,
        )
        able = [name for name in NAMES if self.health[name].routable and name not in tried]
        if isinstance(outcome, Refuse):
            assert not able
            return None
        assert isinstance(outcome, Lease)
        assert outcome.choice.view.name in able
        self.open.append(outcome)
        return outcome

    @rule(target=done, lease=consumes(held))
    def release(self, lease: Lease | None) -> Lease | None:
        """It ends: finished, failed or left."""
        if lease is not None:
            self.dispatcher.release(lease, 0.0)
            self.open.remove(lease)
        return lease

    @rule(lease=done)
    def release_again(self, lease: Lease | None) -> None:
        """Nobody can give a slot back twice."""
        if lease is not None:
            with pytest.raises(LeaseError):
                self.dispatcher.release(lease, 0.0)

    @invariant()
    def counts_are_the_open_leases(self) -> None:
        """Per endpoint and in all."""
        load = self.dispatcher.twins
        counted = [lease for lease in self.open if lease.counted]
        assert self.dispatcher.leases == len(self.open)
        assert load.total() == len(counted)
        for name in NAMES:
            assert load.on(name) == sum(lease.choice.view.name == name for lease in counted)


class TestLeases(Leases.TestCase):  # type: ignore[name-defined,misc]
    """Run the machine."""

    settings = settings(max_examples=60, stateful_step_count=40)

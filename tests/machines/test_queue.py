"""Every request gets one lease, one refusal, or leaves: under any interleaving."""

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from olla.admission.dispatcher import Dispatcher
from olla.admission.refusals import QueueLimits
from olla.admission.tickets import (
    AbandonLoad,
    Answer,
    BeginLoad,
    Granted,
    Lease,
    LeaseError,
    Refused,
    Ticket,
)
from olla.failures import Failure, Kind
from olla.fleet.health import Health
from olla.fleet.line import Loading
from olla.fleet.names import canonical
from olla.fleet.snapshot import Snapshot
from olla.routing.decision import Refuse, RoutingOptions
from olla.routing.policies import POLICIES
from tests.views import features, view

NAMES = ("a", "b", "c")
MODELS = ("m", "n")
ANSWER = Answer(400, 100, 20, 0.1, 0.4, 0.01, 0.6)
LIMITS = QueueLimits(max_queue=6, timeout=50.0, load_grace=5.0)


class Waiting(RuleBasedStateMachine):
    """Requests come, wait, begin, end and leave, while endpoints and loads come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.dispatcher = Dispatcher(
            POLICIES["shortest-expected-delay"], RoutingOptions(prewarm=True), LIMITS
        )
        self.health = dict.fromkeys(NAMES, Health.HEALTHY)
        self.now = 0.0
        self.tickets: list[Ticket] = []
        self.leases: list[Lease] = []
        self.done: list[Lease] = []
        self.loads: list[Loading] = []
        self.number = 0

    def snapshot(self) -> Snapshot:
        """The fleet as it is now."""
        return Snapshot.of(
            view(
                name, at, models=MODELS, health=self.health[name], resident_at=None,
                num_parallel=1 if name == "a" else None,
            )
            for at, name in enumerate(NAMES)
        )  # fmt: skip

    def obey(self) -> None:
        """Do what the dispatcher wants: each ticket is answered once."""
        for action in self.dispatcher.take_actions():
            if isinstance(action, Granted):
                self.tickets.remove(action.ticket)
                self.granted(action.lease)
            elif isinstance(action, Refused):
                self.tickets.remove(action.ticket)
            elif isinstance(action, BeginLoad):
                assert action.loading not in self.loads
                self.loads.append(action.loading)
            else:
                assert isinstance(action, AbandonLoad)
                self.loads.remove(action.loading)

    def granted(self, lease: Lease) -> None:
        """A lease is never on an endpoint that cannot be routed to."""
        assert self.health[lease.choice.view.name].routable
        self.leases.append(lease)

    @rule(
        model=st.sampled_from(MODELS),
        caller=st.sampled_from(["x", "y"]),
        context=st.sampled_from([(), (("num_ctx", 8192.0),)]),
        tried=st.sets(st.sampled_from(NAMES), max_size=2),
    )
    def ask(
        self,
        model: str,
        caller: str,
        context: tuple[tuple[str, float], ...],
        tried: set[str],
    ) -> None:
        """A request arrives, perhaps for another try."""
        self.number += 1
        about = msgspec.structs.replace(
            features(model, ticket=self.number, tried=tuple(sorted(tried))),
            caller=caller,
            load_options=context,
            prompt_tokens=100.0,
        )
        outcome = self.dispatcher.ask(about, self.snapshot(), model, self.now)
        if isinstance(outcome, Ticket):
            self.tickets.append(outcome)
        elif isinstance(outcome, Lease):
            self.granted(outcome)
            assert outcome.choice.view.name not in tried
        else:
            assert isinstance(outcome, Refuse)
        self.obey()

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """A first byte comes."""
        self.dispatcher.began(data.draw(st.sampled_from(self.leases)), self.now)
        self.obey()

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), answer=st.sampled_from([ANSWER, None]))
    def end(self, data: st.DataObject, answer: Answer | None) -> None:
        """A request ends: answered, failed or left."""
        lease = data.draw(st.sampled_from(self.leases))
        self.leases.remove(lease)
        self.done.append(lease)
        self.dispatcher.release(lease, self.now, answer)
        self.obey()

    @precondition(lambda self: self.done)
    @rule(data=st.data())
    def end_again(self, data: st.DataObject) -> None:
        """Nobody can give a slot back twice."""
        with pytest.raises(LeaseError):
            self.dispatcher.release(data.draw(st.sampled_from(self.done)), self.now)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """A client that waits hangs up."""
        ticket = data.draw(st.sampled_from(self.tickets))
        self.tickets.remove(ticket)
        self.dispatcher.leave(ticket, self.now)
        self.obey()

    @precondition(lambda self: self.loads)
    @rule(data=st.data(), failure=st.sampled_from([None, Kind.RESET, Kind.UPSTREAM_STATUS]))
    def end_load(self, data: st.DataObject, failure: Kind | None) -> None:
        """A load ends, well or badly."""
        loading = data.draw(st.sampled_from(self.loads))
        self.loads.remove(loading)
        status = 400 if failure is Kind.UPSTREAM_STATUS else None
        bad = None if failure is None else Failure(failure, "bad", endpoint_status=status)
        self.dispatcher.load_ended(loading, self.now, bad)
        self.obey()

    @rule(name=st.sampled_from(NAMES), health=st.sampled_from([Health.HEALTHY, Health.OFFLINE]))
    def change(self, name: str, health: Health) -> None:
        """An endpoint goes or comes back."""
        self.health[name] = health
        self.dispatcher.changed(self.snapshot(), self.now)
        self.obey()

    @rule(seconds=st.floats(0.01, 30.0))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self.dispatcher.tick(self.now)
        self.obey()

    @invariant()
    def the_books_balance(self) -> None:
        """Leases, tickets, loads and counts are those the shell knows of."""
        assert self.dispatcher.leases == len(self.leases)
        assert self.dispatcher.waiting == len(self.tickets) <= LIMITS.max_queue
        assert self.dispatcher.loads == len(self.loads)
        counts = self.dispatcher.twins
        assert counts.total() == len(self.leases)
        for name in NAMES:
            for model in MODELS:
                expected = sum(
                    lease.choice.view.name == name and lease.choice.model == canonical(model)
                    for lease in self.leases
                )
                assert counts.on_model(name, canonical(model)) == expected

    @invariant()
    def nobody_waits_too_long_or_for_nothing(self) -> None:
        """A deadline is kept at the next tick, and a ticket's line has it among those waiting."""
        for ticket in self.tickets:
            assert ticket in ticket.line.waiting
            assert ticket.deadline >= self.now - 30.0


class TestWaiting(Waiting.TestCase):  # type: ignore[name-defined,misc]
    """Run the machine."""

    settings = settings(max_examples=80, stateful_step_count=50, deadline=None)

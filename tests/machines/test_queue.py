"""Every request gets one lease, one refusal, or leaves: under any interleaving."""

from collections.abc import Iterator
from typing import Any, assert_never

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from olla.admission.dispatcher import Dispatcher
from olla.admission.queue_types import (
    AbandonLoad,
    AnswerStats,
    BeginLoad,
    Granted,
    Lease,
    LeaseError,
    Refused,
    Ticket,
)
from olla.admission.rejections import QueueLimits
from olla.failures import Failure, Kind
from olla.fleet.breaker import BreakerState
from olla.fleet.health import Health
from olla.fleet.instance import ModelInstance, ModelLoad
from olla.fleet.model_names import canonical
from olla.fleet.snapshot import EndpointView, Snapshot
from olla.fleet.twin import Twin
from olla.routing.decision import (
    ChooseEndpoint,
    ChooseFallback,
    ChooseInstance,
    Fallback,
    Refuse,
    RoutingOptions,
    Strategy,
)
from olla.routing.policies import POLICIES
from olla.routing.policy import Policy
from tests.views import features, view

NAMES = ("a", "b", "c")
PROFILES = {"a": "ollama", "b": "ollama", "c": "vllm"}
MODELS = ("m", "n")
HAVING = {"a": ("m", "n"), "b": ("m",), "c": ("n",)}
"""What each endpoint has on disk at first."""
WANTED = (("m",), ("n",), ("m", "n"), ("n", "m"))
"""What requests ask for: a model, or an alias of two."""
ANSWER = AnswerStats(400, 100, 20, 0.1, 0.4, 0.01, 0.6)
GRACE = 5.0
TIMEOUT = 50.0
QUEUE_MAX = 8
Change = tuple[str, Any]
SOME_MODELS = st.sets(st.sampled_from(MODELS)).map(sorted)
CHANGES: st.SearchStrategy[Change] = st.one_of(
    st.tuples(st.just("health"), st.sampled_from([Health.HEALTHY, Health.OFFLINE, Health.BUSY])),
    st.tuples(st.just("breaker"), st.sampled_from(BreakerState)),
    st.tuples(st.just("models"), SOME_MODELS),
    st.tuples(st.just("resident"), SOME_MODELS),
    st.tuples(st.just("slots"), st.sampled_from([None, 1, 2])),
    st.just(("away", None)),
)


class Waiting(RuleBasedStateMachine):
    """Requests come, wait, begin, end and leave, while endpoints, models, loads and settings come
    and go."""

    policy: Policy
    strategy: Strategy
    fallback: Fallback

    @initialize(
        spillover=st.sampled_from([0.0, 2.0]),
        reserved=st.sampled_from([frozenset(), frozenset({"b"})]),
        repriced=st.sampled_from([0, 2, 64]),
    )
    def start(self, spillover: float, reserved: frozenset[str], repriced: int) -> None:
        """A fleet with nothing in memory."""
        options = RoutingOptions(self.strategy, self.fallback, spillover, reserved)
        limits = QueueLimits(QUEUE_MAX, TIMEOUT, GRACE, repriced)
        self.dispatcher = Dispatcher(self.policy, options, limits)
        self.views: dict[str, EndpointView] = {
            name: view(
                name, at, models=HAVING[name], profile=PROFILES[name], resident_at=None,
                num_parallel=1 if name in "ac" else None,
            )
            for at, name in enumerate(NAMES)
        }  # fmt: skip
        self.alter("a", "room", 1)
        self.away: set[str] = set()
        self.now = 0.0
        self.tickets: list[Ticket] = []
        self.answered: dict[Ticket, None] = {}
        self.leases: list[Lease] = []
        self.done: list[Lease] = []
        self.loads: dict[ModelLoad, float] = {}
        """The loads under way, with when a request last waited for them."""
        self.waited_for: set[ModelLoad] = set()
        """Those that a request waited for until the last event."""
        self.prewarmed: set[ModelLoad] = set()
        self.twins: set[Twin] = set()
        self.number = 0
        self.publish()

    # --- the shell ------------------------------------------------------------------------------

    def publish(self) -> None:
        """Tell the dispatcher the fleet as it is now."""
        self.snapshot = Snapshot.of(
            each for name, each in self.views.items() if name not in self.away
        )
        self.dispatcher.changed(self.snapshot, self.now)
        self.obey()

    def obey(self) -> None:
        """Do what the dispatcher wants: each ticket is answered once."""
        for action in self.dispatcher.take_actions():
            match action:
                case Granted():
                    self.answer(action.ticket)
                    self.granted(action.lease)
                case Refused():
                    self.answer(action.ticket)
                case BeginLoad():
                    assert action.loading not in self.loads
                    self.loads[action.loading] = self.now
                    if not action.loading.instance.waiting:
                        self.prewarmed.add(action.loading)
                case AbandonLoad():
                    last = self.loads.pop(action.loading)
                    assert action.loading not in self.prewarmed
                    assert self.now - last >= GRACE
                case never:
                    assert_never(never)
        for loading in self.loads:
            if loading.instance.waiting or loading in self.waited_for:
                self.loads[loading] = self.now
        self.waited_for = {loading for loading in self.loads if loading.instance.waiting}

    def answer(self, ticket: Ticket) -> None:
        """A ticket's wait is over."""
        assert ticket not in self.answered
        self.tickets.remove(ticket)
        self.answered[ticket] = None

    def granted(self, lease: Lease) -> None:
        """A lease is for an endpoint that can serve the request as it is now."""
        choice, options = lease.choice, self.dispatcher.options
        name = choice.twin.name
        now = self.snapshot.by_name[name]
        assert choice.view is now
        assert now.routable
        assert name not in lease.features.tried
        match choice:
            case ChooseInstance():
                assert choice.model in lease.features.models
                assert choice.twin.names[choice.model] is choice.instance
                assert choice.model in now.models
            case ChooseEndpoint():
                assert not lease.features.models
            case ChooseFallback():
                assert options.strategy is Strategy.OPTIMISTIC
                assert options.fallback is Fallback.ALL
            case never:
                assert_never(never)
        self.leases.append(lease)

    def instances(self) -> Iterator[ModelInstance]:
        """Every line there was."""
        self.twins.update(self.dispatcher.twins.by_name.values())
        for twin in self.twins:
            yield from {*twin.instances.values(), *twin.names.values()}

    # --- requests -------------------------------------------------------------------------------

    @rule(
        models=st.sampled_from([*WANTED, *WANTED, ()]),
        caller=st.sampled_from(["x", "y"]),
        context=st.sampled_from([(), (("num_ctx", 8192.0),)]),
        tried=st.sets(st.sampled_from(NAMES), max_size=1),
        counted=st.sampled_from([True, True, True, False]),
        came=st.sampled_from([0.0, 10.0]),
        count=st.sampled_from([1, 3, 6]),
    )
    def ask(
        self,
        models: tuple[str, ...],
        caller: str,
        context: tuple[tuple[str, float], ...],
        tried: set[str],
        counted: bool,
        came: float,
        count: int,
    ) -> None:
        """Requests arrive, perhaps for another try, perhaps with no need of a slot or a model."""
        for _ in range(count):
            self.number += 1
            about = msgspec.structs.replace(
                features(*models, ticket=self.number, tried=tuple(sorted(tried)), dialect="openai"),
                models=tuple(canonical(each) for each in models),
                caller=caller,
                load_options=context,
                prompt_tokens=100.0,
            )
            outcome = self.dispatcher.ask(
                about, self.snapshot, "m", self.now, counted=counted, asked_at=self.now - came
            )
            match outcome:
                case Ticket():
                    assert counted
                    assert self.dispatcher.policy.binds_late
                    self.tickets.append(outcome)
                case Lease():
                    self.granted(outcome)
                case Refuse():
                    pass
                case never:
                    assert_never(never)
            self.obey()

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """A first byte comes."""
        self.dispatcher.began(data.draw(st.sampled_from(self.leases)), self.now)
        self.obey()

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), answer=st.sampled_from([ANSWER, None]), count=st.sampled_from([1, 3]))
    def end(self, data: st.DataObject, answer: AnswerStats | None, count: int) -> None:
        """Requests end: answered, failed or left."""
        for _ in range(min(count, len(self.leases))):
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
    @rule(data=st.data(), everybody=st.booleans())
    def leave(self, data: st.DataObject, everybody: bool) -> None:
        """Clients that wait hang up."""
        leaving = [*self.tickets] if everybody else [data.draw(st.sampled_from(self.tickets))]
        for ticket in leaving:
            if ticket in self.tickets:  # its turn may have come by another's leaving
                self.answer(ticket)
                self.dispatcher.leave(ticket, self.now)
                self.obey()

    @precondition(lambda self: self.answered)
    @rule(data=st.data())
    def leave_again(self, data: st.DataObject) -> None:
        """Leaving after the wait is over changes nothing."""
        before = [*self.dispatcher.queue.tickets]
        gone = data.draw(st.sampled_from([*self.answered]))
        self.dispatcher.leave(gone, self.now)
        assert [*self.dispatcher.queue.tickets] == before
        assert not self.dispatcher.take_actions()

    # --- the fleet ------------------------------------------------------------------------------

    @precondition(lambda self: self.loads)
    @rule(data=st.data(), failure=st.sampled_from([None, Kind.RESET, Kind.UPSTREAM_STATUS]))
    def end_load(self, data: st.DataObject, failure: Kind | None) -> None:
        """A load ends, well or badly."""
        loading = data.draw(st.sampled_from([*self.loads]))
        del self.loads[loading]
        status = 400 if failure is Kind.UPSTREAM_STATUS else None
        bad = None if failure is None else Failure(failure, "bad", endpoint_status=status)
        waiting = [*loading.instance.waiting]
        self.dispatcher.load_ended(loading, self.now, bad)
        self.obey()
        if failure is Kind.RESET:
            name = loading.instance.twin.name
            assert not any(
                each in waiting and each.instance.twin.name == name for each in self.tickets
            )

    @rule(names=st.sets(st.sampled_from(NAMES), min_size=1), change=CHANGES)
    def change(self, names: set[str], change: Change) -> None:
        """Endpoints go down, come back, lose a model, are configured anew, are removed, …"""
        for name in sorted(names):
            self.alter(name, *change)
        self.publish()

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), change=st.sampled_from([("health", Health.OFFLINE), ("models", [])]))
    def lose(self, data: st.DataObject, change: Change) -> None:
        """All that have a model which requests wait for go down, or lose it."""
        model = data.draw(st.sampled_from(self.tickets)).model
        for name, known in self.views.items():
            if model in known.models:
                self.alter(name, *change)
        self.publish()

    @rule()
    def recover(self) -> None:
        """Everything is as it was at first."""
        for name in NAMES:
            for change in (("health", Health.HEALTHY), ("models", HAVING[name])):
                self.alter(name, *change)
        self.away.clear()
        self.publish()

    def alter(self, name: str, what: str, value: Any) -> None:
        """One endpoint is another way now."""
        now = self.views[name]
        match what:
            case "health" | "breaker":
                self.views[name] = msgspec.structs.replace(now, **{what: value})
            case "models":
                told = view(name, models=value)
                self.views[name] = msgspec.structs.replace(now, models=told.models)
            case "resident":
                told = view(name, resident=value)
                self.views[name] = msgspec.structs.replace(
                    now, resident=told.resident, resident_at=self.now
                )
            case "slots":
                spec = msgspec.structs.replace(now.spec, num_parallel=value)
                self.views[name] = msgspec.structs.replace(now, spec=spec)
            case "room":
                spec = msgspec.structs.replace(now.spec, max_loaded_models=value)
                self.views[name] = msgspec.structs.replace(now, spec=spec)
            case "away":
                self.away ^= {name}
            case _:
                raise AssertionError(what)

    @rule(
        policy=st.sampled_from([*POLICIES]),
        strategy=st.sampled_from(Strategy),
        fallback=st.sampled_from(Fallback),
    )
    def reload(self, policy: str, strategy: Strategy, fallback: Fallback) -> None:
        """Other settings of routing are in force for a moment, under whatever waits."""
        before = self.dispatcher.policy, self.dispatcher.options
        self.dispatcher.policy = POLICIES[policy]
        self.dispatcher.options = msgspec.structs.replace(
            before[1], strategy=strategy, fallback=fallback
        )
        self.dispatcher.tick(self.now)
        self.obey()
        self.dispatcher.policy, self.dispatcher.options = before

    @rule(name=st.sampled_from(NAMES), stuck=st.booleans())
    def stick(self, name: str, stuck: bool) -> None:
        """A model is found stuck, or moves again."""
        twin = self.dispatcher.twins.by_name.get(name)
        for instance in [*twin.instances.values()] if twin is not None else []:
            instance.twin.set_stuck(instance, stuck=stuck)
        self.dispatcher.tick(self.now)
        self.obey()

    @rule(seconds=st.floats(0.01, 12.0))
    def wait(self, seconds: float) -> None:
        """Time passes; whatever is due is done by the next tick."""
        self.now += seconds
        self.dispatcher.tick(self.now)
        self.obey()
        for ticket in self.tickets:
            assert ticket.deadline > self.now
        for loading, last in self.loads.items():
            assert loading in self.prewarmed or self.now - last < GRACE + seconds

    # --- what always holds ----------------------------------------------------------------------

    @invariant()
    def the_books_balance(self) -> None:
        """Leases, tickets, loads and counts are those the shell knows of."""
        assert self.dispatcher.leases == len(self.leases)
        assert self.dispatcher.waiting == len(self.tickets) <= QUEUE_MAX
        assert self.dispatcher.loads == len(self.loads)
        counted = [lease for lease in self.leases if lease.counted]
        for twin in {*self.dispatcher.twins.by_name.values()} | self.twins:
            here = [lease for lease in counted if lease.choice.twin is twin]
            assert twin.in_flight == len(here)
            for instance in twin.instances.values():
                assert len(instance.in_flight) == sum(lease.instance is instance for lease in here)

    @invariant()
    def whatever_waits_waits_on_one_line(self) -> None:
        """Both directions: a ticket is among those that wait for its line, and for no other; and
        nothing waits for a line that has left."""
        assert {*self.dispatcher.queue.tickets} == {*self.tickets}
        places = [each.order for each in self.dispatcher.queue.tickets]
        assert places == sorted(places)
        instances = {*self.instances(), *(ticket.instance for ticket in self.tickets)}
        found = [(ticket, instance) for instance in instances for ticket in instance.waiting]
        assert len(found) == len(self.tickets)
        assert {ticket: ticket.instance for ticket in self.tickets} == dict(found)
        for instance in instances:
            orders = [each.order for each in instance.waiting]
            assert orders == sorted(orders)

    @invariant()
    def whatever_waits_could_be_served_there(self) -> None:
        """On an endpoint that is in the fleet, can be routed to, has the model, and was not tried
        in vain."""
        for ticket in self.tickets:
            twin = ticket.instance.twin
            assert self.dispatcher.twins.by_name[twin.name] is twin
            assert twin.names[ticket.model] is ticket.instance
            assert self.snapshot.by_name[twin.name].routable
            assert twin.name not in ticket.features.tried

    @invariant()
    def nothing_waits_for_what_is_free(self) -> None:
        """A model in memory has no slot left; for another one a load is under way, or what has to
        leave for it is busy."""
        for ticket in self.tickets:
            instance, twin = ticket.instance, ticket.instance.twin
            if not instance.ready(ticket.features.load_options, self.now):
                drained = any(each.draining for each in twin.residents.values())
                assert drained or twin.loading is not None
            elif not instance.draining:
                assert len(instance.in_flight) >= instance.slots.limit

    @invariant()
    def loads_are_wanted_by_what_waits(self) -> None:
        """No load is counted in and no model is drained for a request that has left."""
        for instance in self.instances():
            twin = instance.twin
            assert instance not in twin.wanted or instance.waiting
            if instance.draining:
                assert any(ticket.instance.twin is twin for ticket in self.tickets)

    @invariant()
    def callers_are_charged_for_what_waits(self) -> None:
        """A backlog is the work of the caller's tickets, and nothing else."""
        for caller, share in self.dispatcher.queue.shares._shares.items():
            works = [each.work for each in self.tickets if each.features.caller == caller]
            assert share.backlog == pytest.approx(sum(works), abs=1e-6)

    def teardown(self) -> None:
        """However it stands: by `queue_timeout` nothing waits any more."""
        if hasattr(self, "dispatcher"):
            self.wait(TIMEOUT)
            assert not self.tickets
            assert not any(instance.waiting or instance.draining for instance in self.instances())


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize(
    ("strategy", "fallback"),
    [
        (Strategy.STRICT, Fallback.NONE),
        (Strategy.DISCOVERY, Fallback.NONE),
        *((Strategy.OPTIMISTIC, fallback) for fallback in Fallback),
    ],
    ids=lambda each: each.value,
)
def test_whatever_happens_each_request_is_answered_once(
    name: str, strategy: Strategy, fallback: Fallback
) -> None:
    """Granted, refused or left, by `queue_timeout` at the latest: with every policy, strategy and
    fallback. The policies that let requests wait are tried longest."""

    class Machine(Waiting):
        """The same, with these settings."""

    Machine.policy, Machine.strategy, Machine.fallback = POLICIES[name], strategy, fallback
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=50 if POLICIES[name].binds_late else 5,
            stateful_step_count=50,
            deadline=None,
        ),
    )

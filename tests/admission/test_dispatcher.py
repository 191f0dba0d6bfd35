"""Choice and lease in one step, or a place in the queue that ends in one of three ways."""

import msgspec
import pytest

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
from olla.fleet.instance import ModelLoad
from olla.fleet.model_names import canonical
from olla.fleet.snapshot import Snapshot
from olla.routing.decision import (
    ChooseFallback,
    Fallback,
    Reason,
    Refuse,
    RoutingOptions,
    Strategy,
)
from olla.routing.delay import expected_delay
from olla.routing.policies import POLICIES
from olla.routing.policies.steady import Steady
from tests.views import MODEL, features, fleet, view


def dispatcher() -> Dispatcher:
    """One that counts connections."""
    return Dispatcher(POLICIES["least-connections"], RoutingOptions())


def granted(outcome: Lease | Ticket | Refuse) -> Lease:
    """A lease, which it must be."""
    assert isinstance(outcome, Lease)
    return outcome


def test_a_lease_counts_before_the_next_choice_is_made() -> None:
    """Two requests at once go to two endpoints."""
    dispatch, snapshot = dispatcher(), fleet(view("a"), view("b", 1))
    first = granted(dispatch.ask(features(), snapshot, "m", 0.0))
    second = granted(dispatch.ask(features(), snapshot, "m", 0.0))
    assert {first.choice.view.name, second.choice.view.name} == {"a", "b"}
    assert dispatch.leases == 2
    assert dispatch.twins.on_model("a", MODEL) == 1


def test_a_released_lease_counts_no_more_and_cannot_be_released_again() -> None:
    """The count of what is in flight never goes wrong silently."""
    dispatch = dispatcher()
    lease = granted(dispatch.ask(features(), fleet(view("a")), "m", 0.0))
    dispatch.release(lease, 0.0)
    assert dispatch.leases == dispatch.twins.total() == 0
    with pytest.raises(LeaseError):
        dispatch.release(lease, 0.0)


def test_a_refusal_counts_nothing() -> None:
    """Nothing is in flight that was not sent."""
    dispatch = dispatcher()
    assert isinstance(dispatch.ask(features(), fleet(), "m", 0.0), Refuse)
    assert dispatch.leases == dispatch.twins.total() == 0


def test_what_occupies_no_slot_is_leased_but_not_load() -> None:
    """A `show` does not make an endpoint look busy."""
    dispatch = dispatcher()
    lease = granted(dispatch.ask(features(), fleet(view("a")), "m", 0.0, counted=False))
    assert dispatch.leases == 1
    assert dispatch.twins.total() == 0
    dispatch.release(lease, 0.0)
    assert dispatch.leases == 0


def test_a_half_open_endpoint_gets_one_trial_at_a_time() -> None:
    """The next one comes when the first is over; the other endpoint takes the rest."""
    half = view("a", breaker=BreakerState.HALF_OPEN, priority=999)
    snapshot = fleet(half, view("b", 1))
    dispatch = Dispatcher(POLICIES["priority"], RoutingOptions())
    trial, other = (granted(dispatch.ask(features(), snapshot, "m", 0.0)) for _ in range(2))
    assert (trial.choice.view.name, other.choice.view.name) == ("a", "b")
    assert trial.trial
    assert not other.trial
    dispatch.release(trial, 0.0)
    again = granted(dispatch.ask(features(), snapshot, "m", 0.0))
    assert again.choice.view.name == "a"


def test_another_policy_can_stand_in() -> None:
    """Operations that change a node go to the same one whatever it is busy with."""
    dispatch, snapshot = dispatcher(), fleet(view("a"), view("b", 1))
    names = [
        granted(
            dispatch.ask(features(ticket=ticket), snapshot, "m", 0.0, policy=Steady())
        ).choice.view.name
        for ticket in range(3)
    ]
    assert names == ["a", "a", "a"]


# --- requests that wait -------------------------------------------------------------------------

LIMITS = QueueLimits(max_queue=100, timeout=50.0, load_grace=2.0)
OPTIMISTIC = RoutingOptions(Strategy.OPTIMISTIC, Fallback.ALL)


def late(options: RoutingOptions | None = None, limits: QueueLimits = LIMITS) -> Dispatcher:
    """One that lets requests wait."""
    return Dispatcher(POLICIES["shortest-expected-delay"], options or RoutingOptions(), limits)


def queued(outcome: Lease | Ticket | Refuse) -> Ticket:
    """A place in the queue, which it must be."""
    assert isinstance(outcome, Ticket)
    return outcome


def loading(dispatch: Dispatcher) -> ModelLoad:
    """The load that the dispatcher asks for, and nothing else."""
    (action,) = dispatch.take_actions()
    assert isinstance(action, BeginLoad)
    return action.loading


def answers(dispatch: Dispatcher) -> dict[Ticket, Lease | Refuse]:
    """The tickets that are answered now, each once."""
    found: dict[Ticket, Lease | Refuse] = {}
    for action in dispatch.take_actions():
        if isinstance(action, Granted | Refused):
            assert action.ticket not in found
            found[action.ticket] = action.lease if isinstance(action, Granted) else action.refusal
    return found


HAS, HAS_NOT = view("a"), view("b", 1, models=["x"])


@pytest.mark.parametrize(
    "then",
    [
        fleet(view("a", models=["x"]), HAS_NOT),
        fleet(view("a", health=Health.OFFLINE), HAS_NOT),
        fleet(HAS_NOT),
        None,
    ],
    ids=["the model is removed", "the endpoint goes offline", "it is removed", "the load fails"],
)
def test_what_waits_falls_back_when_its_endpoint_is_lost(then: Snapshot | None) -> None:
    """With an optimistic strategy that falls back to all: nobody is left without an answer."""
    dispatch, snapshot = late(OPTIMISTIC), fleet(HAS, HAS_NOT)
    waiting = [queued(dispatch.ask(features(ticket=n), snapshot, "m", 0.0)) for n in range(2)]
    load = loading(dispatch)
    if then is not None:
        dispatch.changed(then, 1.0)
    else:
        dispatch.load_ended(load, 1.0, Failure(Kind.RESET, "it died", "a"))
    found = answers(dispatch)
    assert [*found] == waiting
    for lease in found.values():
        assert isinstance(lease, Lease)
        assert isinstance(lease.choice, ChooseFallback)
        assert lease.choice.view.routable
        dispatch.release(lease, 2.0)
    assert dispatch.waiting == dispatch.leases == dispatch.twins.total() == 0


def test_what_waits_is_refused_when_its_endpoint_is_lost_and_nothing_may_fall_back() -> None:
    """With what broke the load, where that is known."""
    dispatch, snapshot = late(), fleet(HAS, HAS_NOT)
    ticket = queued(dispatch.ask(features(), snapshot, "m", 0.0))
    died = Failure(Kind.RESET, "it died", "a")
    dispatch.load_ended(loading(dispatch), 1.0, died)
    refusal = answers(dispatch)[ticket]
    assert isinstance(refusal, Refuse)
    assert refusal.failure is died
    assert dispatch.waiting == 0


def test_whatever_waits_is_answered_by_its_deadline() -> None:
    """At the first tick after it."""
    dispatch, snapshot = late(), fleet(HAS)
    ticket = queued(dispatch.ask(features(), snapshot, "m", 0.0))
    dispatch.tick(49.9)
    assert not answers(dispatch)
    dispatch.tick(50.0)
    refusal = answers(dispatch)[ticket]
    assert isinstance(refusal, Refuse)
    assert refusal.failure.kind is Kind.QUEUE_TIMEOUT


def test_an_alias_is_served_as_the_model_that_its_endpoint_has() -> None:
    """Whichever of its models that is, and although it was not priced again."""
    dispatch = late()
    snapshot = fleet(view("a", models=["y"], resident=["y"], num_parallel=1))
    lease = granted(dispatch.ask(features("x", "y"), snapshot, "alias", 0.0))
    for number in range(3):
        queued(dispatch.ask(features("x", "y", ticket=number), snapshot, "alias", 0.0))
    for turn in range(3):
        dispatch.release(lease, 0.001 * turn)  # within the time between two pricings
        ((_, answer),) = answers(dispatch).items()
        assert isinstance(answer, Lease)
        assert answer.model == canonical("y")
        lease = answer


def test_what_waits_moves_to_an_endpoint_that_is_configured_anew() -> None:
    """It does not go to the old address because that is as good as the new one."""
    dispatch = late()
    busy = view("a", resident=["m"], num_parallel=1)
    first = granted(dispatch.ask(features(), fleet(busy), "m", 0.0))
    ticket = queued(dispatch.ask(features(ticket=1), fleet(busy), "m", 0.0))
    moved = msgspec.structs.replace(busy, spec=msgspec.structs.replace(busy.spec, host="new"))
    dispatch.changed(fleet(moved), 1.0)
    answer = answers(dispatch)[ticket]
    assert isinstance(answer, Lease)
    assert answer.choice.view.spec.host == "new"
    dispatch.release(first, 2.0)


@pytest.mark.parametrize("how", ["offline", "removed", "model removed"])
def test_nothing_is_started_on_an_endpoint_that_is_lost_however_long_the_queue(how: str) -> None:
    """Also where more wait than are priced again: they are, when their place is gone."""
    limits = msgspec.structs.replace(LIMITS, repriced=1)
    dispatch = late(limits=limits)
    here = view("a", profile="vllm", num_parallel=1)
    there = view("b", 1, profile="vllm", num_parallel=1)
    about = features(dialect="openai")
    running = [granted(dispatch.ask(about, fleet(here, there), "m", 0.0)) for _ in range(2)]
    for number in range(6):
        each = msgspec.structs.replace(about, ticket=number)
        queued(dispatch.ask(each, fleet(here, there), "m", 0.0))
    lost = {
        "offline": fleet(msgspec.structs.replace(here, health=Health.OFFLINE), there),
        "removed": fleet(there),
        "model removed": fleet(msgspec.structs.replace(here, models={}), there),
    }[how]
    dispatch.changed(lost, 1.0)
    assert {ticket.instance.twin.name for ticket in dispatch.queue.tickets} == {"b"}
    for lease in running:
        dispatch.release(lease, 2.0)
    for answer in answers(dispatch).values():
        assert isinstance(answer, Lease)
        assert answer.choice.twin.name == "b"


def one_room(*, slots: int = 1) -> Snapshot:
    """A node with the models m and n, and room for one of them: m."""
    there = view("a", models=["m", "n"], resident=["m"], num_parallel=slots)
    spec = msgspec.structs.replace(there.spec, max_loaded_models=1)
    return fleet(msgspec.structs.replace(there, spec=spec))


def two_busy() -> tuple[Dispatcher, Ticket, dict[str, Lease]]:
    """Two endpoints with a slot each, both at work for ten seconds more, and one that waits at a;
    all was priced at 0."""
    dispatch = late()
    both = fleet(*(view(name, at, resident=["m"], num_parallel=1) for at, name in enumerate("ab")))
    leases: dict[str, Lease] = {}
    for number in range(2):
        lease = granted(dispatch.ask(features(ticket=number), both, "m", 0.0))
        leases[lease.choice.twin.name] = lease
        assert lease.flight is not None
        lease.flight.expected = 10.0
    ticket = queued(dispatch.ask(features(), both, "m", 0.0))
    dispatch.tick(0.0)
    assert ticket.instance.twin.name == "a"
    return dispatch, ticket, leases


@pytest.mark.parametrize(("seconds", "where"), [(9.9, "a"), (9.7, "b")])
def test_what_waits_moves_for_a_clear_gain_only(seconds: float, where: str) -> None:
    """Two tenths of a second: for less it would only go to and fro."""
    dispatch, ticket, leases = two_busy()
    flight = leases["b"].flight
    assert flight is not None
    flight.expected = seconds
    dispatch.tick(0.0)
    assert ticket.instance.twin.name == where


def test_what_waits_is_not_priced_again_at_every_event() -> None:
    """Every fiftieth of a second at most, so that a long queue costs bounded time."""
    dispatch, ticket, leases = two_busy()
    flight = leases["b"].flight
    assert flight is not None
    flight.expected = 1.0
    dispatch.began(leases["a"], 0.01)
    assert ticket.instance.twin.name == "a"
    flight.began = None
    dispatch.began(leases["b"], 0.03)
    assert ticket.instance.twin.name == "b"


def test_a_request_waits_for_a_model_that_is_to_make_room() -> None:
    """Nothing new starts on it, or whatever waits for the other model would wait for ever."""
    dispatch = late()
    running = granted(dispatch.ask(features("m"), one_room(slots=2), "m", 0.0))
    snapshot = dispatch.twins.snapshot
    queued(dispatch.ask(features("n", ticket=1), snapshot, "n", 0.0))
    queued(dispatch.ask(features("m", ticket=2), snapshot, "m", 0.1))
    dispatch.release(running, 1.0)
    assert loading(dispatch).instance.model == canonical("n")


def test_a_request_that_only_loads_needs_no_slot() -> None:
    """It works on nothing, so a busy model does not hold it up."""
    dispatch, snapshot = late(), fleet(view("a", resident=["m"], num_parallel=1))
    running = granted(dispatch.ask(features(), snapshot, "m", 0.0))
    about = msgspec.structs.replace(features(ticket=1), only_loads=True)
    store_service = granted(dispatch.ask(about, snapshot, "m", 0.0))
    for lease in (running, store_service):
        dispatch.release(lease, 1.0)


def test_a_load_that_the_endpoint_refuses_is_left_to_the_client_s_own_request() -> None:
    """It is sent, so that the client gets the endpoint's own words; later ones too, but not while
    another model is being loaded there."""
    dispatch, snapshot = late(), fleet(view("a", models=["m", "n"]))
    ticket = queued(dispatch.ask(features("m"), snapshot, "m", 0.0))
    refused = Failure(Kind.UPSTREAM_STATUS, "no", "a", endpoint_status=400)
    dispatch.load_ended(loading(dispatch), 1.0, refused)
    lease = answers(dispatch)[ticket]
    assert isinstance(lease, Lease)
    assert lease.instance is ticket.instance
    dispatch.release(lease, 1.0)
    other = queued(dispatch.ask(features("n", ticket=1), snapshot, "n", 2.0))
    load = loading(dispatch)
    again = queued(dispatch.ask(features("m", ticket=2), snapshot, "m", 2.0))
    dispatch.load_ended(load, 3.0)
    assert {*answers(dispatch)} == {other, again}


def test_the_reason_tells_what_was_waited_for() -> None:
    """A load, or a slot."""
    dispatch, snapshot = late(), fleet(view("a", num_parallel=1))
    first, second = (queued(dispatch.ask(features(ticket=n), snapshot, "m", 0.0)) for n in range(2))
    dispatch.load_ended(loading(dispatch), 4.0)
    lease = answers(dispatch)[first]
    assert isinstance(lease, Lease)
    assert lease.choice.reason is Reason.COLD_LOAD
    third = queued(dispatch.ask(features(ticket=2), snapshot, "m", 4.0))
    dispatch.release(lease, 5.0)
    lease = answers(dispatch)[second]
    assert isinstance(lease, Lease)
    dispatch.release(lease, 6.0)
    lease = answers(dispatch)[third]
    assert isinstance(lease, Lease)
    assert lease.choice.reason is Reason.QUEUED
    assert (lease.waited, lease.predicted) == (2.0, third.predicted)


def test_a_wait_that_is_expected_to_be_too_long_is_refused_at_once() -> None:
    """A load takes four seconds, and three may be waited."""
    dispatch = late(limits=msgspec.structs.replace(LIMITS, timeout=3.0))
    outcome = dispatch.ask(features(), fleet(HAS), "m", 0.0)
    assert isinstance(outcome, Refuse)
    assert outcome.failure.kind is Kind.QUEUE_FULL
    assert not dispatch.take_actions()


def test_a_request_that_is_tried_again_has_no_more_time_than_before() -> None:
    """Its deadline counts from when it came first."""
    dispatch = late()
    ticket = queued(dispatch.ask(features(), fleet(HAS), "m", 30.0, asked_at=5.0))
    assert ticket.deadline == 55.0


# --- what is learned ----------------------------------------------------------------------------


def test_only_new_requests_pay_for_retries() -> None:
    """Or an outage would pay for its own retries."""
    dispatch, snapshot = late(), fleet(view("a", resident=["m"]), view("b", 1, resident=["m"]))
    budget = dispatch.retries
    budget.share = 1.0
    while budget.spend(in_flight=0, free=False):
        pass
    dispatch.release(granted(dispatch.ask(features(tried=("a",)), snapshot, "m", 0.0)), 0.0)
    assert not budget.spend(in_flight=0, free=False)
    dispatch.release(granted(dispatch.ask(features(), snapshot, "m", 0.0)), 0.0)
    assert budget.spend(in_flight=0, free=False)


def test_a_conversation_goes_on_where_it_was_answered() -> None:
    """From the first byte on its beginning is expected to be in the prompt cache there."""
    dispatch = late()
    both = fleet(*(view(name, at, resident=["m"], num_parallel=1) for at, name in enumerate("ab")))
    about = msgspec.structs.replace(
        features(), prefix=(1, 2), prompt_tokens=1000.0, prompt_bytes=4500
    )
    for number in range(4):
        lease = granted(
            dispatch.ask(msgspec.structs.replace(about, ticket=number), both, "m", float(number))
        )
        assert lease.choice.twin.name == "a"
        assert bool(lease.features.cached) is (number > 0)
        dispatch.began(lease, number + 0.1)
        dispatch.release(lease, number + 0.2)


def test_an_answer_teaches_and_a_failure_does_not() -> None:
    """The rates of the endpoint and the length of answers."""
    dispatch, snapshot = late(), fleet(view("a", resident=["m"], num_parallel=1))
    answer = AnswerStats(4000, 1000, 400, 0.5, 4.0, 0.0, 4.5)
    for told, learned in ((None, False), (answer, True)):
        lease = granted(dispatch.ask(features(), snapshot, "m", 0.0))
        instance = lease.instance
        assert instance is not None
        before = instance.habits.output_tokens
        dispatch.release(lease, 1.0, told)
        assert (instance.habits.output_tokens > before) is learned


def test_only_the_first_byte_is_when_an_answer_began() -> None:
    """Whatever the shell tells again."""
    dispatch, snapshot = late(), fleet(view("a", resident=["m"], num_parallel=1))
    lease = granted(dispatch.ask(features(), snapshot, "m", 0.0))
    assert lease.flight is not None
    for now in (1.0, 2.0):
        dispatch.began(lease, now)
        assert lease.flight.began == 1.0
    dispatch.release(lease, 3.0)


def test_a_prediction_is_without_what_is_charged_for_a_low_priority() -> None:
    """Spillover is a preference, not seconds that anybody waits."""
    dispatch = late(RoutingOptions(spillover=100.0))
    low = view("b", 1, resident=["m"], priority=1, num_parallel=1)
    snapshot = fleet(view("a", models=["x"], priority=100), low)
    about = msgspec.structs.replace(features(), prompt_tokens=1000.0)
    lease = granted(dispatch.ask(about, snapshot, "m", 0.0))
    assert lease.instance is not None
    assert lease.predicted == pytest.approx(1000 * lease.instance.rates.prefill)
    dispatch.release(lease, 0.0)


# --- requests that leave ------------------------------------------------------------------------


def test_equal_idle_endpoints_share_requests_after_others_have_left_the_queue() -> None:
    """Somebody who waited at one of them and hung up is not counted there any more."""
    dispatch = late()
    both = fleet(*(view(name, at, resident=["m"], num_parallel=1) for at, name in enumerate("ab")))
    running = [granted(dispatch.ask(features(ticket=n), both, "m", 0.0)) for n in range(2)]
    for number in range(5):
        dispatch.leave(queued(dispatch.ask(features(ticket=number), both, "m", 0.0)), 0.1)
    for lease in running:
        dispatch.release(lease, 1.0)
    served = []
    for number in range(10):
        lease = granted(dispatch.ask(features(ticket=number), both, "m", 2.0))
        served.append(lease.choice.twin.name)
        dispatch.release(lease, 2.0)
    assert served.count("a") == served.count("b") == 5


def test_short_waits_that_are_given_up_do_not_add_up() -> None:
    """However many have left, the wait is that of what waits now, and nobody is refused for it."""
    dispatch = late(limits=msgspec.structs.replace(LIMITS, timeout=20.0))
    snapshot = fleet(view("a", resident=["m"], num_parallel=1))
    running = granted(dispatch.ask(features(), snapshot, "m", 0.0))
    instance = dispatch.twins.instances(MODEL)[0]
    alone = expected_delay(instance, features(), dispatch.twins, 0.0).wait
    for number in range(100):
        ticket = queued(dispatch.ask(features(ticket=number), snapshot, "m", 0.0))
        dispatch.leave(ticket, 0.0)
    assert expected_delay(instance, features(), dispatch.twins, 0.0).wait == alone
    dispatch.release(running, 1.0)
    assert expected_delay(instance, features(), dispatch.twins, 1.0).wait == 0.0


def test_a_model_is_not_drained_any_more_for_a_request_that_has_left() -> None:
    """What needed its room is gone, so the next request for it starts at once."""
    dispatch, snapshot = late(), one_room()
    running = granted(dispatch.ask(features("m"), snapshot, "m", 0.0))
    dispatch.leave(queued(dispatch.ask(features("n"), snapshot, "n", 0.0)), 0.1)
    dispatch.release(running, 0.2)
    again = granted(dispatch.ask(features("m", ticket=2), snapshot, "m", 0.3))
    assert again.choice.twin.wanted == {}
    dispatch.release(again, 0.4)


def test_a_load_that_nobody_waits_for_any_more_is_given_up_after_the_grace() -> None:
    """`routing.load_grace` after the last one left; the shell is told to hang up."""
    dispatch = late()
    ticket = queued(dispatch.ask(features(), fleet(HAS), "m", 0.0))
    load = loading(dispatch)
    dispatch.leave(ticket, 0.5)
    for now in (0.5, 1.5, 2.4):
        dispatch.tick(now)
        assert dispatch.take_actions() == ()
        assert dispatch.next_tick(now) is not None
    dispatch.tick(2.5)
    (action,) = dispatch.take_actions()
    assert isinstance(action, AbandonLoad)
    assert action.loading is load
    assert dispatch.loads == 0
    assert dispatch.next_tick(2.5) is None
    dispatch.load_ended(load, 2.6, Failure(Kind.RESET, "hung up", "a"))
    again = queued(dispatch.ask(features(ticket=1), fleet(HAS), "m", 3.0))
    assert loading(dispatch) is not load
    dispatch.leave(again, 3.0)


def test_a_load_that_somebody_waits_for_goes_on() -> None:
    """For as long as it takes, whoever else leaves."""
    dispatch = late()
    leaving, staying = (
        queued(dispatch.ask(features(ticket=n), fleet(HAS), "m", 0.0)) for n in range(2)
    )
    load = loading(dispatch)
    dispatch.leave(leaving, 0.5)
    for now in range(1, 40):
        dispatch.tick(float(now))
    assert not dispatch.take_actions()
    dispatch.load_ended(load, 40.0)
    answer = answers(dispatch)[staying]
    assert isinstance(answer, Lease)


def test_the_next_load_begins_when_one_is_given_up() -> None:
    """A node loads one model at a time: whatever waits behind an unwanted load waits no more."""
    dispatch = late()
    snapshot = fleet(view("a", models=["m", "n"]))
    leaving = queued(dispatch.ask(features("m"), snapshot, "m", 0.0))
    unwanted = loading(dispatch)
    queued(dispatch.ask(features("n", ticket=1), snapshot, "n", 0.0))
    assert not dispatch.take_actions()
    dispatch.leave(leaving, 0.0)
    dispatch.tick(2.0)
    abandon, begin = dispatch.take_actions()
    assert isinstance(abandon, AbandonLoad)
    assert abandon.loading is unwanted
    assert isinstance(begin, BeginLoad)
    assert begin.loading.instance.model == canonical("n")

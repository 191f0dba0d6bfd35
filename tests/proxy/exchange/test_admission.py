"""The dispatcher on the event loop."""

import asyncio

from olla.admission.dispatcher import Dispatcher
from olla.admission.queue_types import Lease, Ticket
from olla.admission.rejections import QueueLimits
from olla.clock import SystemClock
from olla.failures import Kind
from olla.fleet.snapshot import EndpointView
from olla.proxy.background.model_loader import ModelLoader
from olla.proxy.exchange.admission import Admission
from olla.proxy.upstream.pool import Pool
from olla.routing.decision import Refuse, RoutingOptions
from olla.routing.policies import POLICIES
from tests.views import features, fleet, view


def admission(*views: EndpointView, limits: QueueLimits | None = None) -> Admission:
    """Admission to these endpoints."""
    clock, snapshot = SystemClock(), fleet(*views)
    pool = Pool(clock, connect_timeout=1.0, idle_timeout=1.0)
    return Admission(
        Dispatcher(POLICIES["shortest-expected-delay"], RoutingOptions(), limits),
        clock,
        lambda ended: ModelLoader(pool, ended, timeout=1.0, new_id=lambda: "id"),
        snapshot=lambda: snapshot,
    )


def warm(now: float) -> EndpointView:
    """An endpoint with one slot for a loaded model."""
    return view("a", resident=["m:latest"], num_parallel=1, resident_at=now)


class Caller:
    """Someone who asks, and is told when it comes to a wait."""

    def __init__(self, authenticator: Admission) -> None:
        self.authenticator = authenticator
        self.told: list[Lease | Refuse] = []
        self.entered = authenticator.enter(features(), "m", self.told.append)

    @property
    def ticket(self) -> Ticket:
        """The place in the queue, which there must be."""
        assert isinstance(self.entered, Ticket)
        return self.entered

    @property
    def lease(self) -> Lease:
        """The lease, which there must be, at once or after a wait."""
        lease = self.told[0] if self.told else self.entered
        assert isinstance(lease, Lease)
        return lease


def now() -> float:
    """The clock's time."""
    return SystemClock().now()


async def test_the_next_one_enters_when_the_slot_is_free() -> None:
    """And is told how long it waited, in a turn of the loop of its own."""
    authenticator = admission(warm(now()))
    first, second = Caller(authenticator), Caller(authenticator)
    assert authenticator.dispatcher.waiting == 1
    authenticator.release(first.lease, now())
    assert second.told == []
    await asyncio.sleep(0)
    assert second.lease.waited > 0
    authenticator.release(second.lease, now())
    assert authenticator.dispatcher.leases == 0
    await authenticator.close()


async def test_whoever_leaves_gives_up_the_place() -> None:
    """At once, and the next one moves up; leaving twice is leaving once."""
    authenticator = admission(warm(now()))
    first, second, third = Caller(authenticator), Caller(authenticator), Caller(authenticator)
    authenticator.leave(second.ticket)
    authenticator.leave(second.ticket)
    assert authenticator.dispatcher.waiting == 1
    authenticator.release(first.lease, now())
    await asyncio.sleep(0)
    assert second.told == []
    authenticator.release(third.lease, now())
    assert authenticator.dispatcher.leases == 0
    await authenticator.close()


async def test_whose_turn_has_come_is_told_so_even_when_it_has_left() -> None:
    """It holds the lease, and gives it back: nothing leaks in the same turn of the loop."""
    authenticator = admission(warm(now()))
    first, second = Caller(authenticator), Caller(authenticator)
    authenticator.release(first.lease, now())
    authenticator.leave(second.ticket)
    await asyncio.sleep(0)
    authenticator.release(second.lease, now())
    assert authenticator.dispatcher.leases == authenticator.dispatcher.waiting == 0
    await authenticator.close()


async def test_a_wait_ends_with_the_time_limit() -> None:
    """As a refusal, not as an exception."""
    authenticator = admission(warm(now()), limits=QueueLimits(timeout=1e9))
    first, second = Caller(authenticator), Caller(authenticator)
    authenticator.dispatcher.tick(now() + 2e9)
    authenticator.changed(authenticator.dispatcher.twins.snapshot)
    await asyncio.sleep(0)
    (outcome,) = second.told
    assert isinstance(outcome, Refuse)
    assert outcome.failure.kind is Kind.QUEUE_TIMEOUT
    authenticator.release(first.lease, now())
    await authenticator.close()

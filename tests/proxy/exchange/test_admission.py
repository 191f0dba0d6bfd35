"""The dispatcher's shell on the event loop."""

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


def make_admission(*views: EndpointView, limits: QueueLimits | None = None) -> Admission:
    """Return an admission for these endpoints."""
    clock, snapshot = SystemClock(), fleet(*views)
    pool = Pool(clock, connect_timeout=1.0, idle_timeout=1.0)
    return Admission(
        Dispatcher(POLICIES["shortest-expected-delay"], RoutingOptions(), limits),
        clock,
        lambda ended: ModelLoader(pool, ended, timeout=1.0, new_id=lambda: "id"),
        snapshot=lambda: snapshot,
    )


def warm(now: float) -> EndpointView:
    """Return an endpoint with one slot for a resident model."""
    return view("a", resident=["m:latest"], num_parallel=1, resident_at=now)


class Request:
    """A request that records the result of its wait."""

    def __init__(self, admission: Admission) -> None:
        self.results: list[Lease | Refuse] = []
        self.entered = admission.enter(features(), "m", self.results.append)

    @property
    def ticket(self) -> Ticket:
        """The ticket; fails without one."""
        assert isinstance(self.entered, Ticket)
        return self.entered

    @property
    def lease(self) -> Lease:
        """The lease, granted at once or after a wait; fails without one."""
        lease = self.results[0] if self.results else self.entered
        assert isinstance(lease, Lease)
        return lease


def now() -> float:
    """Return the clock's time."""
    return SystemClock().now()


async def test_the_next_request_gets_a_released_slot() -> None:
    """Its callback runs in a later iteration of the loop, and its lease has the time waited."""
    admission = make_admission(warm(now()))
    first, second = Request(admission), Request(admission)
    assert admission.dispatcher.waiting == 1
    admission.release(first.lease, now())
    assert second.results == []
    await asyncio.sleep(0)
    assert second.lease.waited > 0
    admission.release(second.lease, now())
    assert admission.dispatcher.leases == 0
    await admission.close()


async def test_a_cancelled_ticket_leaves_the_queue() -> None:
    """At once, and the next request moves up. Cancelling twice has no further effect."""
    admission = make_admission(warm(now()))
    first, second, third = Request(admission), Request(admission), Request(admission)
    admission.leave(second.ticket)
    admission.leave(second.ticket)
    assert admission.dispatcher.waiting == 1
    admission.release(first.lease, now())
    await asyncio.sleep(0)
    assert second.results == []
    admission.release(third.lease, now())
    assert admission.dispatcher.leases == 0
    await admission.close()


async def test_a_granted_lease_is_delivered_even_if_the_ticket_is_cancelled() -> None:
    """The request must release it, so no lease leaks in the same iteration of the loop."""
    admission = make_admission(warm(now()))
    first, second = Request(admission), Request(admission)
    admission.release(first.lease, now())
    admission.leave(second.ticket)
    await asyncio.sleep(0)
    admission.release(second.lease, now())
    assert admission.dispatcher.leases == admission.dispatcher.waiting == 0
    await admission.close()


async def test_a_wait_ends_at_the_queue_timeout() -> None:
    """With a rejection, not with an exception."""
    admission = make_admission(warm(now()), limits=QueueLimits(timeout=1e9))
    first, second = Request(admission), Request(admission)
    admission.dispatcher.tick(now() + 2e9)
    admission.changed(admission.dispatcher.twins.snapshot)
    await asyncio.sleep(0)
    (result,) = second.results
    assert isinstance(result, Refuse)
    assert result.failure.kind is Kind.QUEUE_TIMEOUT
    admission.release(first.lease, now())
    await admission.close()

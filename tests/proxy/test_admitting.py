"""The dispatcher on the event loop."""

import asyncio

import pytest

from olla.admission.dispatcher import Dispatcher
from olla.admission.refusals import QueueLimits
from olla.admission.tickets import Lease
from olla.clock import SystemClock
from olla.failures import Kind
from olla.fleet.snapshot import EndpointView
from olla.proxy.admitting import Admission
from olla.proxy.upstream import Pool
from olla.routing.decision import Refuse, RoutingOptions
from olla.routing.policies import POLICIES
from tests.views import features, fleet, view


def admission(*views: EndpointView, limits: QueueLimits | None = None) -> Admission:
    """Admission to these endpoints."""
    clock, snapshot = SystemClock(), fleet(*views)
    return Admission(
        Dispatcher(POLICIES["shortest-expected-delay"], RoutingOptions(), limits),
        clock,
        Pool(clock, connect_timeout=1.0, idle_timeout=1.0),
        snapshot=lambda: snapshot,
        load_timeout=1.0,
        new_id=lambda: "id",
    )


def warm(now: float) -> EndpointView:
    """An endpoint with one slot for a loaded model."""
    return view("a", resident=["m:latest"], num_parallel=1, resident_at=now)


async def enter(gate: Admission) -> Lease:
    """A lease, which there must be."""
    granted = await gate.enter(features(), "m")
    assert isinstance(granted, Lease)
    return granted


async def test_the_next_one_enters_when_the_slot_is_free() -> None:
    """And is told how long it waited."""
    gate = admission(warm(SystemClock().now()))
    first = await enter(gate)
    second = asyncio.create_task(enter(gate))
    await asyncio.sleep(0)
    assert gate.dispatcher.waiting == 1
    assert not second.done()
    gate.release(first)
    lease = await second
    assert lease.waited > 0
    gate.release(lease)
    assert gate.dispatcher.leases == 0
    await gate.close()


async def test_whoever_leaves_gives_up_the_place() -> None:
    """At once, and the next one moves up."""
    gate = admission(warm(SystemClock().now()))
    first = await enter(gate)
    waiting = [asyncio.create_task(enter(gate)) for _ in range(2)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[0]
    assert gate.dispatcher.waiting == 1
    gate.release(first)
    gate.release(await waiting[1])
    assert gate.dispatcher.leases == 0
    await gate.close()


async def test_a_lease_that_comes_as_its_client_leaves_is_given_back() -> None:
    """In the same turn of the loop: nothing leaks."""
    gate = admission(warm(SystemClock().now()))
    first = await enter(gate)
    waiting = asyncio.create_task(enter(gate))
    await asyncio.sleep(0)
    gate.release(first)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert gate.dispatcher.leases == gate.dispatcher.waiting == 0
    await gate.close()


async def test_a_wait_ends_with_the_time_limit() -> None:
    """As a refusal, not as an exception."""
    limits = QueueLimits(timeout=1e9)
    gate = admission(warm(SystemClock().now()), limits=limits)
    first = await enter(gate)
    waiting = asyncio.create_task(gate.enter(features(), "m"))
    await asyncio.sleep(0)
    gate.dispatcher.tick(SystemClock().now() + 2e9)
    gate._obey()
    outcome = await waiting
    assert isinstance(outcome, Refuse)
    assert outcome.failure.kind is Kind.QUEUE_TIMEOUT
    gate.release(first)
    await gate.close()

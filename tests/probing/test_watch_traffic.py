"""What traffic tells of an endpoint, and what the watch makes of it: in virtual time."""

import asyncio

import pytest

from olla.failures import Failure, Kind
from olla.fleet.breaker import FAILURES_TO_OPEN
from olla.fleet.model_names import canonical
from olla.probing.probe_client import Reply, Verdict
from tests.probing.virtual_time import Watched, in_virtual_time

LLAMA = canonical("llama3")
RESIDENT = Reply(Verdict.OK, b'{"models": [{"name": "llama3:latest", "size_vram": 5}]}')
OPENAI_LIST = Reply(Verdict.OK, b'{"data": [{"id": "m", "owned_by": "somebody"}]}')


def failure(kind: Kind, status: int | None = None, retry_after: float | None = None) -> Failure:
    """What traffic reports."""
    return Failure(kind, kind.value, "a", retry_after=retry_after, endpoint_status=status)


def answered(status: int, retry_after: float | None = None) -> Failure:
    """The endpoint answered a request with this status."""
    return failure(Kind.UPSTREAM_STATUS, status, retry_after)


@pytest.mark.parametrize(
    "kind",
    [Kind.CONNECT_REFUSED, Kind.CONNECT_UNREACHABLE, Kind.CONNECT_DNS, Kind.CONNECT_TLS],
)
def test_a_connection_that_cannot_be_made_is_told_at_once(kind: Kind) -> None:
    """Offline before the next request; and asked again, because it may be wrong by now."""

    @in_virtual_time
    async def run() -> None:
        async with Watched(check_interval=60.0) as endpoint:
            await asyncio.sleep(7.0)
            endpoint.watch.observe(failure(kind), LLAMA)
            assert endpoint.health == "offline"
            assert endpoint.views[-1].health.value == "offline"
            await asyncio.sleep(0.01)
            assert endpoint.asker.times("/") == [0.0, 7.0]
            assert endpoint.health == "healthy"

    run()


@pytest.mark.parametrize(
    "kind", [Kind.CONNECT_TIMEOUT, Kind.RESET, Kind.FIRST_BYTE_TIMEOUT, Kind.BODY_TRUNCATED]
)
def test_another_failure_is_a_reason_to_ask(kind: Kind) -> None:
    """It ejects nobody by itself: the breaker counts it, and a probe tells."""

    @in_virtual_time
    async def run() -> None:
        async with Watched(check_interval=60.0) as endpoint:
            await asyncio.sleep(7.0)
            endpoint.watch.observe(failure(kind), LLAMA)
            assert endpoint.health == "healthy"
            await asyncio.sleep(0.01)
            assert endpoint.asker.times("/") == [0.0, 7.0]

    run()


@in_virtual_time
async def test_a_storm_of_failures_makes_no_storm_of_probes() -> None:
    """A thousand a second: two probes."""
    async with Watched(check_interval=60.0) as endpoint:
        await asyncio.sleep(7.0)
        for _ in range(1000):
            endpoint.watch.observe(failure(Kind.RESET), LLAMA)
            await asyncio.sleep(0.001)
        assert endpoint.asker.times("/") == pytest.approx([0.0, 7.0, 7.5], abs=0.01)


@in_virtual_time
async def test_what_is_not_the_endpoints_fault_changes_nothing() -> None:
    """A request that took too long in all, a model that is missing."""
    async with Watched(check_interval=60.0) as endpoint:
        for kind in (Kind.TOTAL_TIMEOUT, Kind.CLIENT_GONE, Kind.MODEL_NOT_FOUND):
            for _ in range(20):
                endpoint.watch.observe(failure(kind), LLAMA)
        await asyncio.sleep(1.0)
        assert (endpoint.health, endpoint.view.breaker.value) == ("healthy", "closed")
        assert endpoint.asker.times("/") == [0.0]


@in_virtual_time
async def test_the_breaker_is_seen_to_open_and_to_find_back() -> None:
    """Open, half-open after its time without anybody's doing, closed by a good trial."""
    async with Watched(check_interval=60.0) as endpoint:
        for _ in range(FAILURES_TO_OPEN):
            endpoint.watch.observe(answered(500), LLAMA)
        assert endpoint.views[-1].breaker.value == "open"
        assert endpoint.health == "healthy"
        await asyncio.sleep(0.9)
        assert endpoint.view.breaker.value == "open"
        await asyncio.sleep(0.2)
        assert endpoint.views[-1].breaker.value == "half-open"
        endpoint.watch.observe(answered(500), LLAMA)
        assert endpoint.view.breaker.value == "open"
        await asyncio.sleep(2.1)
        assert endpoint.view.breaker.value == "half-open"
        endpoint.watch.observe(None, LLAMA)
        assert endpoint.views[-1].breaker.value == "closed"


@in_virtual_time
async def test_an_open_breaker_does_not_outlive_the_watch() -> None:
    """Its timer ends with it, and later news are not heard."""
    endpoint = Watched()
    async with endpoint:
        for _ in range(FAILURES_TO_OPEN):
            endpoint.watch.observe(answered(500), LLAMA)
    views = len(endpoint.views)
    endpoint.watch.observe(None, LLAMA)
    endpoint.watch.observe(failure(Kind.CONNECT_REFUSED), LLAMA)
    await asyncio.sleep(60.0)
    assert len(endpoint.views) == views


@in_virtual_time
async def test_a_request_that_was_limited_pauses_the_endpoint() -> None:
    """Lists that are answered meanwhile do not end the pause; its end does."""
    endpoint = Watched(type="openai-compatible", check_interval=5.0)
    endpoint.asker.replies = {"/v1/models": OPENAI_LIST}
    async with endpoint:
        endpoint.watch.observe(answered(429, retry_after=20.0), None)
        assert (endpoint.health, endpoint.view.retry_at) == ("rate-limited", 1020.0)
        await endpoint.watch.next_round()
        assert endpoint.health == "rate-limited"
        await asyncio.sleep(18.0)
        assert endpoint.health == "rate-limited"
        await asyncio.sleep(9.0)
        assert endpoint.health == "healthy"
        assert endpoint.view.breaker.value == "closed"


@in_virtual_time
async def test_ollama_passes_limits_on_from_the_cloud() -> None:
    """They concern one model, and not the node."""
    async with Watched() as endpoint:
        endpoint.watch.observe(answered(429, retry_after=20.0), LLAMA)
        assert endpoint.health == "healthy"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_request_is_a_reason_to_ask(status: int) -> None:
    """It may have been the caller's own key: a probe with ours tells."""

    @in_virtual_time
    async def run() -> None:
        async with Watched(check_interval=60.0) as endpoint:
            await asyncio.sleep(7.0)
            for _ in range(20):
                endpoint.watch.observe(answered(status), LLAMA)
            assert (endpoint.health, endpoint.view.breaker.value) == ("healthy", "closed")
            endpoint.asker.all_answer(Verdict.UNAUTHORIZED)
            await asyncio.sleep(0.1)
            assert endpoint.health == "config-error"

    run()


@in_virtual_time
async def test_a_node_that_answers_requests_is_not_given_up() -> None:
    """However late its signs of life are: an answer ends the suspicion."""
    async with Watched(check_interval=5.0, check_timeout=2.0) as endpoint:
        endpoint.asker.seconds["/"] = 99.0
        for _ in range(60):
            await asyncio.sleep(1.0)
            endpoint.watch.observe(None, None)
        assert endpoint.view.routable
        assert len(endpoint.asker.times("/")) > 5


@in_virtual_time
async def test_a_model_that_answered_is_looked_for_in_memory() -> None:
    """At once, so that the next request finds it warm; known already, it is not."""
    async with Watched(check_interval=60.0) as endpoint:
        await asyncio.sleep(7.0)
        endpoint.asker.replies["/api/ps"] = RESIDENT
        endpoint.watch.observe(None, LLAMA)
        await asyncio.sleep(0.01)
        assert LLAMA in endpoint.views[-1].resident
        for _ in range(20):
            endpoint.watch.observe(None, LLAMA)
            await asyncio.sleep(0.1)
        assert endpoint.asker.times("/api/ps") == [0.0, 7.0]


@in_virtual_time
async def test_a_model_that_is_never_in_memory_is_not_looked_for_without_end() -> None:
    """A cloud model answers a thousand times a second, and a node is asked twice."""
    async with Watched(check_interval=60.0) as endpoint:
        await asyncio.sleep(7.0)
        for _ in range(1000):
            endpoint.watch.observe(None, canonical("big:cloud"))
            await asyncio.sleep(0.001)
        assert len(endpoint.asker.times("/api/ps")) <= 4

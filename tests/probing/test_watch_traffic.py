"""Tests of how traffic influences the watch, in virtual time."""

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
    """Return a failure as traffic reports it."""
    return Failure(kind, kind.value, "a", retry_after=retry_after, endpoint_status=status)


def answered(status: int, retry_after: float | None = None) -> Failure:
    """Return the failure of a request that the endpoint answered with a status."""
    return failure(Kind.UPSTREAM_STATUS, status, retry_after)


@pytest.mark.parametrize(
    "kind",
    [Kind.CONNECT_REFUSED, Kind.CONNECT_UNREACHABLE, Kind.CONNECT_DNS, Kind.CONNECT_TLS],
)
def test_a_failed_connection_means_offline_immediately(kind: Kind) -> None:
    """Before the next request. The endpoint is probed again, because it may already be back."""

    @in_virtual_time
    async def run() -> None:
        async with Watched(check_interval=60.0) as endpoint:
            await asyncio.sleep(7.0)
            endpoint.watch.observe(failure(kind), LLAMA)
            assert endpoint.health == "offline"
            assert endpoint.views[-1].health.value == "offline"
            await asyncio.sleep(0.01)
            assert endpoint.client.times("/") == [0.0, 7.0]
            assert endpoint.health == "healthy"

    run()


@pytest.mark.parametrize(
    "kind", [Kind.CONNECT_TIMEOUT, Kind.RESET, Kind.FIRST_BYTE_TIMEOUT, Kind.BODY_TRUNCATED]
)
def test_other_failures_trigger_a_probe(kind: Kind) -> None:
    """They do not eject the endpoint: the breaker counts them, and the probe decides."""

    @in_virtual_time
    async def run() -> None:
        async with Watched(check_interval=60.0) as endpoint:
            await asyncio.sleep(7.0)
            endpoint.watch.observe(failure(kind), LLAMA)
            assert endpoint.health == "healthy"
            await asyncio.sleep(0.01)
            assert endpoint.client.times("/") == [0.0, 7.0]

    run()


@in_virtual_time
async def test_a_burst_of_failures_triggers_few_probes() -> None:
    """A thousand failures in a second trigger two probes."""
    async with Watched(check_interval=60.0) as endpoint:
        await asyncio.sleep(7.0)
        for _ in range(1000):
            endpoint.watch.observe(failure(Kind.RESET), LLAMA)
            await asyncio.sleep(0.001)
        assert endpoint.client.times("/") == pytest.approx([0.0, 7.0, 7.5], abs=0.01)


@in_virtual_time
async def test_failures_of_others_do_not_count_against_the_endpoint() -> None:
    """Such as a request that took too long in total, or a missing model."""
    async with Watched(check_interval=60.0) as endpoint:
        for kind in (Kind.TOTAL_TIMEOUT, Kind.CLIENT_GONE, Kind.MODEL_NOT_FOUND):
            for _ in range(20):
                endpoint.watch.observe(failure(kind), LLAMA)
        await asyncio.sleep(1.0)
        assert (endpoint.health, endpoint.view.breaker.value) == ("healthy", "closed")
        assert endpoint.client.times("/") == [0.0]


@in_virtual_time
async def test_the_breaker_opens_and_recovers() -> None:
    """Open, half-open after its timer, closed by a successful trial."""
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
    """The watch cancels its timer, and ignores later results."""
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
async def test_a_rate_limited_request_pauses_the_endpoint() -> None:
    """Lists that are read in the meantime do not end the pause."""
    endpoint = Watched(type="openai-compatible", check_interval=5.0)
    endpoint.client.replies = {"/v1/models": OPENAI_LIST}
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
async def test_a_rate_limit_of_ollama_does_not_pause_the_node() -> None:
    """Ollama forwards limits of its cloud, which concern one model."""
    async with Watched() as endpoint:
        endpoint.watch.observe(answered(429, retry_after=20.0), LLAMA)
        assert endpoint.health == "healthy"


@pytest.mark.parametrize("status", [401, 403])
def test_an_unauthorized_request_triggers_a_probe(status: int) -> None:
    """The caller's own key may be the reason: a probe with olla's key decides."""

    @in_virtual_time
    async def run() -> None:
        async with Watched(check_interval=60.0) as endpoint:
            await asyncio.sleep(7.0)
            for _ in range(20):
                endpoint.watch.observe(answered(status), LLAMA)
            assert (endpoint.health, endpoint.view.breaker.value) == ("healthy", "closed")
            endpoint.client.all_answer(Verdict.UNAUTHORIZED)
            await asyncio.sleep(0.1)
            assert endpoint.health == "config-error"

    run()


@in_virtual_time
async def test_a_node_that_answers_requests_stays_routable() -> None:
    """Even if its health checks are late."""
    async with Watched(check_interval=5.0, check_timeout=2.0) as endpoint:
        endpoint.client.seconds["/"] = 99.0
        for _ in range(60):
            await asyncio.sleep(1.0)
            endpoint.watch.observe(None, None)
        assert endpoint.view.routable
        assert len(endpoint.client.times("/")) > 5


@in_virtual_time
async def test_an_answer_triggers_a_probe_of_loaded_models() -> None:
    """Immediately, so that the next request finds the model loaded. No probe is sent if it is
    known."""
    async with Watched(check_interval=60.0) as endpoint:
        await asyncio.sleep(7.0)
        endpoint.client.replies["/api/ps"] = RESIDENT
        endpoint.watch.observe(None, LLAMA)
        await asyncio.sleep(0.01)
        assert LLAMA in endpoint.views[-1].resident
        for _ in range(20):
            endpoint.watch.observe(None, LLAMA)
            await asyncio.sleep(0.1)
        assert endpoint.client.times("/api/ps") == [0.0, 7.0]


@in_virtual_time
async def test_a_model_that_is_never_loaded_triggers_few_probes() -> None:
    """A cloud model may answer a thousand times in a second."""
    async with Watched(check_interval=60.0) as endpoint:
        await asyncio.sleep(7.0)
        for _ in range(1000):
            endpoint.watch.observe(None, canonical("big:cloud"))
            await asyncio.sleep(0.001)
        assert len(endpoint.client.times("/api/ps")) <= 4

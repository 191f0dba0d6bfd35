"""Tests of the schedule of probes and of their results, in virtual time."""

import asyncio

import pytest

from olla.fleet.model_names import canonical
from olla.fleet.snapshot import EndpointView
from olla.probing.inventory import ProbeKind
from olla.probing.probe_client import Reply, Verdict
from tests.probing.virtual_time import Watched, in_virtual_time

LLAMA = canonical("llama3")
RESIDENT = Reply(Verdict.OK, b'{"models": [{"name": "llama3:latest", "size_vram": 5}]}')
OPENAI_LIST = Reply(Verdict.OK, b'{"data": [{"id": "m", "owned_by": "somebody"}]}')


@in_virtual_time
async def test_each_probe_has_its_schedule() -> None:
    """Health and loaded models every interval, models every list interval, the version every ten
    minutes."""
    async with Watched(check_interval=5.0, list_interval=30.0) as endpoint:
        await asyncio.sleep(1202.0)
    client = endpoint.client
    assert client.times("/")[:4] == [0.0, 5.0, 10.0, 15.0]
    assert client.times("/api/ps") == client.times("/")
    assert client.times("/api/tags")[:3] == [0.0, 30.0, 60.0]
    assert client.times("/api/version") == [0.0, 600.0, 1200.0]


@in_virtual_time
async def test_the_list_interval_may_be_shorter_than_the_check_interval() -> None:
    """Both kinds of probes then follow the list interval."""
    async with Watched(check_interval=60.0, list_interval=10.0) as endpoint:
        await asyncio.sleep(31.0)
    assert endpoint.client.times("/api/tags") == [0.0, 10.0, 20.0, 30.0]


@in_virtual_time
async def test_probes_of_a_round_run_in_parallel() -> None:
    """A round takes as long as its slowest answer."""
    endpoint = Watched()
    endpoint.client.seconds = dict.fromkeys(endpoint.client.replies, 1.0)
    async with endpoint:
        assert asyncio.get_running_loop().time() == pytest.approx(1001.0)
        assert endpoint.health == "healthy"


@in_virtual_time
async def test_a_failing_endpoint_is_probed_with_backoff() -> None:
    """After 1, 2, 4, 8 times the interval, a minute at most; a success resets the backoff."""
    endpoint = Watched(check_interval=5.0)
    endpoint.client.all_answer(Verdict.BROKEN)
    async with endpoint:
        await asyncio.sleep(200.0)
        assert endpoint.client.times("/") == [0.0, 5.0, 15.0, 35.0, 75.0, 135.0, 195.0]
        endpoint.client.replies = Watched().client.replies
        await endpoint.watch.next_round()
        assert endpoint.health == "healthy"
        await asyncio.sleep(11.0)
        assert endpoint.client.times("/")[-3:] == [200.0, 205.0, 210.0]


@in_virtual_time
async def test_an_offline_endpoint_is_probed_every_five_seconds() -> None:
    """So it is back within five seconds of a restart, regardless of its interval."""
    endpoint = Watched(check_interval=60.0)
    endpoint.client.all_answer(Verdict.UNREACHABLE)
    async with endpoint:
        assert endpoint.health == "offline"
        await asyncio.sleep(21.0)
        assert endpoint.client.times("/") == [0.0, 5.0, 10.0, 15.0, 20.0]


@in_virtual_time
async def test_requested_probes_are_merged_into_one_round() -> None:
    """Ten requests start one round, which includes the models although they are not due."""
    async with Watched(check_interval=60.0) as endpoint:
        await asyncio.sleep(7.0)
        for _ in range(10):
            endpoint.watch.probe_now()
        await asyncio.sleep(5.0)
        assert endpoint.client.times("/") == [0.0, 7.0]
        assert endpoint.client.times("/api/tags") == [0.0, 7.0]


@in_virtual_time
async def test_next_round_waits_for_a_round_that_began_after_the_call() -> None:
    """The current round may have probed before the change."""
    async with Watched(check_interval=60.0) as endpoint:
        endpoint.client.seconds["/api/ps"] = 1.0
        endpoint.watch.probe_now()
        await asyncio.sleep(0.5)
        await endpoint.watch.next_round()
        assert endpoint.client.times("/api/ps") == [0.0, 0.0, 1.0]


@in_virtual_time
async def test_many_callers_can_wait_for_rounds() -> None:
    """Also for the first round, after it has finished."""
    async with Watched(check_interval=60.0) as endpoint:
        async with asyncio.timeout(1.0):
            await asyncio.gather(
                *(endpoint.watch.next_round() for _ in range(5)), endpoint.watch.first_round()
            )
            await endpoint.watch.first_round()


@in_virtual_time
async def test_stop_releases_waiting_callers() -> None:
    """In the middle of a round that hangs."""
    endpoint = Watched(check_timeout=50.0)
    endpoint.client.seconds["/"] = 40.0
    endpoint.watch.start()
    waiting = asyncio.ensure_future(endpoint.watch.first_round())
    await asyncio.sleep(1.0)
    await endpoint.watch.stop()
    async with asyncio.timeout(1.0):
        await waiting


# --- results --------------------------------------------------------------------------------


@in_virtual_time
async def test_a_good_round_publishes_the_endpoint() -> None:
    """Health, models, loaded models, version and times."""
    endpoint = Watched(check_interval=5.0)
    endpoint.client.replies["/api/ps"] = RESIDENT
    async with endpoint:
        view = endpoint.view
        assert (view.health.value, view.version, view.last_error) == ("healthy", "0.33.0", None)
        assert set(view.models) == {LLAMA}
        assert view.resident[LLAMA].size_vram == 5
        assert (view.checked_at, view.models_at, view.next_check_at) == (1000.0, 1000.0, 1005.0)
        assert endpoint.views[-1] == view


@pytest.mark.parametrize("path", ["/api/ps", "/api/tags"])
def test_a_node_with_a_slow_list_is_busy(path: str) -> None:
    """It is alive, so it stays routable and keeps its data."""

    @in_virtual_time
    async def run() -> None:
        endpoint = Watched(check_interval=5.0, check_timeout=2.0, list_interval=5.0)
        endpoint.client.replies["/api/ps"] = RESIDENT
        async with endpoint:
            endpoint.client.seconds[path] = 10.0
            await asyncio.sleep(60.0)
            assert endpoint.health == "busy"
            assert endpoint.view.routable
            assert LLAMA in endpoint.view.models
            assert LLAMA in endpoint.view.resident
            assert endpoint.view.last_error == f"GET {path} timed out"
            endpoint.client.seconds.clear()
            await asyncio.sleep(8.0)
            assert endpoint.health == "healthy"

    run()


@in_virtual_time
async def test_a_hung_node_is_unhealthy_after_three_timed_out_health_checks() -> None:
    """Under suspicion it is probed every second, so that this takes seconds and not minutes."""
    async with Watched(check_interval=5.0, check_timeout=2.0) as endpoint:
        endpoint.client.seconds["/"] = 99.0
        await asyncio.sleep(7.5)
        assert endpoint.health == "busy"
        await asyncio.sleep(6.0)
        assert endpoint.health == "unhealthy"
        assert endpoint.client.times("/") == [0.0, 5.0, 8.0, 11.0]


@pytest.mark.parametrize(
    ("verdict", "health"),
    [
        (Verdict.UNREACHABLE, "offline"),
        (Verdict.BROKEN, "unhealthy"),
        (Verdict.UNAUTHORIZED, "config-error"),
        (Verdict.RATE_LIMITED, "rate-limited"),
        (Verdict.LOADING, "warming"),
    ],
)
def test_a_failing_endpoint_is_not_routable_until_it_recovers(
    verdict: Verdict, health: str
) -> None:
    """With the reason. Loaded models are dropped, models are kept; everything is probed again after
    recovery."""

    @in_virtual_time
    async def run() -> None:
        endpoint = Watched(check_interval=5.0)
        endpoint.client.replies["/api/ps"] = RESIDENT
        healthy = dict(endpoint.client.replies)
        async with endpoint:
            endpoint.client.all_answer(verdict)
            await endpoint.watch.next_round()
            view = endpoint.view
            assert (view.health.value, view.last_error) == (health, verdict.value)
            assert not view.routable
            assert (set(view.models), dict(view.resident)) == ({LLAMA}, {})
            endpoint.client.replies = healthy
            endpoint.client.requests.clear()
            await asyncio.sleep(40.0)
            assert endpoint.health == "healthy"
            assert endpoint.view.last_error is None
            assert LLAMA in endpoint.view.resident
            assert endpoint.client.times("/api/tags")
            assert endpoint.client.times("/api/version")

    run()


@in_virtual_time
async def test_a_broken_list_outweighs_a_slow_one() -> None:
    """The endpoint is unhealthy, not busy."""
    async with Watched(check_timeout=1.0) as endpoint:
        endpoint.client.seconds["/api/tags"] = 9.0
        endpoint.client.replies["/api/ps"] = Reply(Verdict.BROKEN, error="GET /api/ps answered 500")
        await endpoint.watch.next_round()
        assert endpoint.health == "unhealthy"


@in_virtual_time
async def test_a_missing_list_is_a_failure_and_a_missing_health_path_is_not() -> None:
    """A 404 shows that the server is alive. Without models, no request can be sent to it."""
    async with Watched() as endpoint:
        del endpoint.client.replies["/"]
        await endpoint.watch.next_round()
        assert endpoint.health == "healthy"
        del endpoint.client.replies["/api/tags"]
        await endpoint.watch.next_round()
        assert endpoint.health == "unhealthy"
        assert endpoint.view.last_error == "GET /api/tags answered 404"


@in_virtual_time
async def test_the_version_does_not_affect_health() -> None:
    """Late or missing, the endpoint is healthy."""
    endpoint = Watched(check_timeout=1.0)
    endpoint.client.seconds["/api/version"] = 9.0
    async with endpoint:
        assert (endpoint.health, endpoint.view.version) == ("healthy", None)
        endpoint.client.seconds.clear()
        await endpoint.watch.next_round()
        assert endpoint.view.version == "0.33.0"


@in_virtual_time
async def test_a_removed_model_disappears() -> None:
    """With the next list."""
    async with Watched(check_interval=5.0, list_interval=30.0) as endpoint:
        endpoint.client.replies["/api/tags"] = Reply(Verdict.OK, b'{"models": []}')
        await asyncio.sleep(31.0)
        assert (dict(endpoint.view.models), endpoint.health) == ({}, "healthy")


@in_virtual_time
async def test_a_rate_limited_endpoint_is_not_probed() -> None:
    """For the time of Retry-After; then it recovers."""
    endpoint = Watched(check_interval=5.0)
    async with endpoint:
        healthy = dict(endpoint.client.replies)
        endpoint.client.all_answer(Verdict.RATE_LIMITED, retry_after=40.0)
        await asyncio.sleep(6.0)
        assert (endpoint.health, endpoint.view.retry_at) == ("rate-limited", 1045.0)
        endpoint.client.replies = healthy
        endpoint.client.requests.clear()
        await asyncio.sleep(38.0)
        assert endpoint.client.requests == []
        await asyncio.sleep(10.0)
        assert (endpoint.health, endpoint.view.retry_at) == ("healthy", None)


@in_virtual_time
async def test_transitions_are_logged_and_probes_are_not() -> None:
    """One line each, with the state before and after, and the reason."""
    endpoint = Watched(check_interval=5.0)
    async with endpoint:
        healthy = dict(endpoint.client.replies)
        await asyncio.sleep(60.0)
        endpoint.client.all_answer(Verdict.UNREACHABLE)
        await asyncio.sleep(60.0)
        endpoint.client.replies = healthy
        await asyncio.sleep(60.0)
    logged = [
        (each["log_level"], each["before"], each["after"], each["reason"])
        for each in endpoint.log.entries
    ]
    assert logged == [
        ("info", "unknown", "healthy", None),
        ("warning", "healthy", "offline", "unreachable"),
        ("info", "offline", "healthy", None),
    ]
    assert {each["endpoint"] for each in endpoint.log.entries} == {"a"}


@in_virtual_time
async def test_an_internal_error_does_not_end_the_watch() -> None:
    """It is logged as an error, and the endpoint is probed again."""
    async with Watched(check_interval=5.0) as endpoint:
        endpoint.client.error = ZeroDivisionError("oh")
        await asyncio.sleep(6.0)
        assert endpoint.health == "unhealthy"
        assert "ZeroDivisionError" in (endpoint.view.last_error or "")
        errors = [each for each in endpoint.log.entries if each["log_level"] == "error"]
        assert {each["event"] for each in errors} == {"response parsing failed"}
        endpoint.client.error = None
        await asyncio.sleep(6.0)
        assert endpoint.health == "healthy"


@in_virtual_time
async def test_an_error_in_a_follower_does_not_end_the_watch() -> None:
    """The error is logged, callers that wait for a round return, and the endpoint is probed
    again."""
    async with Watched(check_interval=5.0) as endpoint:
        views, broken = endpoint.views, True

        def publish(view: EndpointView) -> None:
            if broken:
                raise ZeroDivisionError("oh")
            views.append(view)

        endpoint.watch._publish_view = publish
        await endpoint.watch.next_round()
        errors = [each for each in endpoint.log.entries if each["log_level"] == "error"]
        assert {each["event"] for each in errors} == {"probe failed"}
        broken = False
        before = len(views)
        await asyncio.sleep(6.0)
        assert len(views) > before
        assert endpoint.health == "healthy"


# --- server types ---------------------------------------------------------------------------


@in_virtual_time
async def test_the_type_is_detected_again_after_a_failure() -> None:
    """Another server may have taken the address; it inherits no data."""
    async with Watched(type="auto", check_interval=5.0) as endpoint:
        assert endpoint.view.profile is not None
        assert endpoint.view.profile.name == "ollama"
        assert endpoint.health == "healthy"
        endpoint.client.all_answer(Verdict.UNREACHABLE)
        await asyncio.sleep(6.0)
        assert (endpoint.health, endpoint.view.profile.name) == ("offline", "ollama")
        endpoint.client.replies = {"/v1/models": OPENAI_LIST}
        await asyncio.sleep(6.0)
        assert endpoint.health == "healthy"
        assert endpoint.view.profile.name == "openai-compatible"
        assert set(endpoint.view.models) == {canonical("m")}
        assert endpoint.view.version is None


@in_virtual_time
async def test_the_type_of_a_healthy_endpoint_is_not_detected_again() -> None:
    """One detection is enough while the endpoint is up."""
    async with Watched(type="auto", check_interval=5.0) as endpoint:
        endpoint.client.requests.clear()
        await asyncio.sleep(6.0)
        assert {path for _, path in endpoint.client.requests} == {"/", "/api/ps"}


@in_virtual_time
async def test_an_endpoint_of_unknown_type_gets_no_requests() -> None:
    """It gets no type-specific probes either."""
    endpoint = Watched(type="auto")
    endpoint.client.replies = {}
    async with endpoint:
        assert endpoint.view.profile is None
        assert not endpoint.view.routable
        await endpoint.watch.refresh(ProbeKind.RESIDENT, 0.0)
        endpoint.watch.observe(None, LLAMA)
        await asyncio.sleep(1.0)
        assert "/api/ps" not in {path for _, path in endpoint.client.requests}

"""When an endpoint is asked, and what its answers lead to: in virtual time."""

import asyncio

import pytest

from olla.fleet.model_names import canonical
from olla.fleet.snapshot import EndpointView
from olla.probing.inventory import Question
from olla.probing.probe_client import Reply, Verdict
from tests.probing.virtual_time import Watched, in_virtual_time

LLAMA = canonical("llama3")
RESIDENT = Reply(Verdict.OK, b'{"models": [{"name": "llama3:latest", "size_vram": 5}]}')
OPENAI_LIST = Reply(Verdict.OK, b'{"data": [{"id": "m", "owned_by": "somebody"}]}')


@in_virtual_time
async def test_each_thing_is_asked_for_on_its_own_schedule() -> None:
    """Life and memory every interval, models every list interval, the version every ten minutes."""
    async with Watched(check_interval=5.0, list_interval=30.0) as endpoint:
        await asyncio.sleep(1202.0)
    asker = endpoint.asker
    assert asker.times("/")[:4] == [0.0, 5.0, 10.0, 15.0]
    assert asker.times("/api/ps") == asker.times("/")
    assert asker.times("/api/tags")[:3] == [0.0, 30.0, 60.0]
    assert asker.times("/api/version") == [0.0, 600.0, 1200.0]


@in_virtual_time
async def test_models_are_read_in_time_where_probes_are_rare() -> None:
    """A list interval shorter than the check interval holds."""
    async with Watched(check_interval=60.0, list_interval=10.0) as endpoint:
        await asyncio.sleep(31.0)
    assert endpoint.asker.times("/api/tags") == [0.0, 10.0, 20.0, 30.0]


@in_virtual_time
async def test_questions_of_a_round_are_put_side_by_side() -> None:
    """A round takes as long as its slowest answer."""
    endpoint = Watched()
    endpoint.asker.seconds = dict.fromkeys(endpoint.asker.replies, 1.0)
    async with endpoint:
        assert asyncio.get_running_loop().time() == pytest.approx(1001.0)
        assert endpoint.health == "healthy"


@in_virtual_time
async def test_an_endpoint_in_trouble_is_asked_less_and_less() -> None:
    """1, 2, 4, 8 times the interval, and a minute at most; one success resets that."""
    endpoint = Watched(check_interval=5.0)
    endpoint.asker.all_answer(Verdict.BROKEN)
    async with endpoint:
        await asyncio.sleep(200.0)
        assert endpoint.asker.times("/") == [0.0, 5.0, 15.0, 35.0, 75.0, 135.0, 195.0]
        endpoint.asker.replies = Watched().asker.replies
        await endpoint.watch.next_round()
        assert endpoint.health == "healthy"
        await asyncio.sleep(11.0)
        assert endpoint.asker.times("/")[-3:] == [200.0, 205.0, 210.0]


@in_virtual_time
async def test_an_endpoint_that_refuses_is_asked_every_five_seconds() -> None:
    """Restarted, it is back within that, however rare its probes are."""
    endpoint = Watched(check_interval=60.0)
    endpoint.asker.all_answer(Verdict.UNREACHABLE)
    async with endpoint:
        assert endpoint.health == "offline"
        await asyncio.sleep(21.0)
        assert endpoint.asker.times("/") == [0.0, 5.0, 10.0, 15.0, 20.0]


@in_virtual_time
async def test_asking_at_once_is_done_at_once_and_together() -> None:
    """Ten wishes make one round, with the models in it though they are not due."""
    async with Watched(check_interval=60.0) as endpoint:
        await asyncio.sleep(7.0)
        for _ in range(10):
            endpoint.watch.ask_now()
        await asyncio.sleep(5.0)
        assert endpoint.asker.times("/") == [0.0, 7.0]
        assert endpoint.asker.times("/api/tags") == [0.0, 7.0]


@in_virtual_time
async def test_who_waits_for_a_round_gets_one_that_began_afterwards() -> None:
    """The round under way may have asked before the change."""
    async with Watched(check_interval=60.0) as endpoint:
        endpoint.asker.seconds["/api/ps"] = 1.0
        endpoint.watch.ask_now()
        await asyncio.sleep(0.5)
        await endpoint.watch.next_round()
        assert endpoint.asker.times("/api/ps") == [0.0, 0.0, 1.0]


@in_virtual_time
async def test_many_may_wait_for_rounds() -> None:
    """Those who wait for the first one among them, however late they come."""
    async with Watched(check_interval=60.0) as endpoint:
        async with asyncio.timeout(1.0):
            await asyncio.gather(
                *(endpoint.watch.next_round() for _ in range(5)), endpoint.watch.first_round()
            )
            await endpoint.watch.first_round()


@in_virtual_time
async def test_stopping_lets_those_who_wait_go() -> None:
    """In the middle of a round that hangs."""
    endpoint = Watched(check_timeout=50.0)
    endpoint.asker.seconds["/"] = 40.0
    endpoint.watch.start()
    waiting = asyncio.ensure_future(endpoint.watch.first_round())
    await asyncio.sleep(1.0)
    await endpoint.watch.stop()
    async with asyncio.timeout(1.0):
        await waiting


# --- what answers mean ----------------------------------------------------------------------


@in_virtual_time
async def test_a_good_round_makes_the_fleet_know_the_endpoint() -> None:
    """Health, models, memory, version and times."""
    endpoint = Watched(check_interval=5.0)
    endpoint.asker.replies["/api/ps"] = RESIDENT
    async with endpoint:
        view = endpoint.view
        assert (view.health.value, view.version, view.last_error) == ("healthy", "0.33.0", None)
        assert set(view.models) == {LLAMA}
        assert view.resident[LLAMA].size_vram == 5
        assert (view.checked_at, view.models_at, view.next_check_at) == (1000.0, 1000.0, 1005.0)
        assert endpoint.views[-1] == view


@pytest.mark.parametrize("path", ["/api/ps", "/api/tags"])
def test_a_node_that_is_slow_to_tell_is_busy(path: str) -> None:
    """It lives: it stays routable, and what was known stays known."""

    @in_virtual_time
    async def run() -> None:
        endpoint = Watched(check_interval=5.0, check_timeout=2.0, list_interval=5.0)
        endpoint.asker.replies["/api/ps"] = RESIDENT
        async with endpoint:
            endpoint.asker.seconds[path] = 10.0
            await asyncio.sleep(60.0)
            assert endpoint.health == "busy"
            assert endpoint.view.routable
            assert LLAMA in endpoint.view.models
            assert LLAMA in endpoint.view.resident
            assert endpoint.view.last_error == f"GET {path} timed out"
            endpoint.asker.seconds.clear()
            await asyncio.sleep(8.0)
            assert endpoint.health == "healthy"

    run()


@in_virtual_time
async def test_a_hung_node_is_given_up_after_three_late_signs_of_life() -> None:
    """Under suspicion it is asked every second, so that takes seconds and not minutes."""
    async with Watched(check_interval=5.0, check_timeout=2.0) as endpoint:
        endpoint.asker.seconds["/"] = 99.0
        await asyncio.sleep(7.5)
        assert endpoint.health == "busy"
        await asyncio.sleep(6.0)
        assert endpoint.health == "unhealthy"
        assert endpoint.asker.times("/") == [0.0, 5.0, 8.0, 11.0]


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
def test_trouble_takes_an_endpoint_out_until_it_is_over(verdict: Verdict, health: str) -> None:
    """With its reason; memory is forgotten, models are not; all is asked anew when it is back."""

    @in_virtual_time
    async def run() -> None:
        endpoint = Watched(check_interval=5.0)
        endpoint.asker.replies["/api/ps"] = RESIDENT
        sound = dict(endpoint.asker.replies)
        async with endpoint:
            endpoint.asker.all_answer(verdict)
            await endpoint.watch.next_round()
            view = endpoint.view
            assert (view.health.value, view.last_error) == (health, verdict.value)
            assert not view.routable
            assert (set(view.models), dict(view.resident)) == ({LLAMA}, {})
            endpoint.asker.replies = sound
            endpoint.asker.asked.clear()
            await asyncio.sleep(40.0)
            assert endpoint.health == "healthy"
            assert endpoint.view.last_error is None
            assert LLAMA in endpoint.view.resident
            assert endpoint.asker.times("/api/tags")
            assert endpoint.asker.times("/api/version")

    run()


@in_virtual_time
async def test_worse_than_slow_counts_more() -> None:
    """A late list beside a broken one is a broken endpoint."""
    async with Watched(check_timeout=1.0) as endpoint:
        endpoint.asker.seconds["/api/tags"] = 9.0
        endpoint.asker.replies["/api/ps"] = Reply(Verdict.BROKEN, error="GET /api/ps answered 500")
        await endpoint.watch.next_round()
        assert endpoint.health == "unhealthy"


@in_virtual_time
async def test_a_missing_list_is_trouble_and_a_missing_sign_of_life_is_not() -> None:
    """404 for the greeting is a greeting; without models there is nothing to send."""
    async with Watched() as endpoint:
        del endpoint.asker.replies["/"]
        await endpoint.watch.next_round()
        assert endpoint.health == "healthy"
        del endpoint.asker.replies["/api/tags"]
        await endpoint.watch.next_round()
        assert endpoint.health == "unhealthy"
        assert endpoint.view.last_error == "GET /api/tags answered 404"


@in_virtual_time
async def test_a_version_judges_nothing() -> None:
    """Late or missing, the endpoint is healthy."""
    endpoint = Watched(check_timeout=1.0)
    endpoint.asker.seconds["/api/version"] = 9.0
    async with endpoint:
        assert (endpoint.health, endpoint.view.version) == ("healthy", None)
        endpoint.asker.seconds.clear()
        await endpoint.watch.next_round()
        assert endpoint.view.version == "0.33.0"


@in_virtual_time
async def test_a_model_that_was_removed_vanishes() -> None:
    """With the next list."""
    async with Watched(check_interval=5.0, list_interval=30.0) as endpoint:
        endpoint.asker.replies["/api/tags"] = Reply(Verdict.OK, b'{"models": []}')
        await asyncio.sleep(31.0)
        assert (dict(endpoint.view.models), endpoint.health) == ({}, "healthy")


@in_virtual_time
async def test_a_rate_limited_endpoint_is_left_alone() -> None:
    """For as long as it asked, and is back right after."""
    endpoint = Watched(check_interval=5.0)
    async with endpoint:
        sound = dict(endpoint.asker.replies)
        endpoint.asker.all_answer(Verdict.RATE_LIMITED, retry_after=40.0)
        await asyncio.sleep(6.0)
        assert (endpoint.health, endpoint.view.retry_at) == ("rate-limited", 1045.0)
        endpoint.asker.replies = sound
        endpoint.asker.asked.clear()
        await asyncio.sleep(38.0)
        assert endpoint.asker.asked == []
        await asyncio.sleep(10.0)
        assert (endpoint.health, endpoint.view.retry_at) == ("healthy", None)


@in_virtual_time
async def test_transitions_are_logged_and_probes_are_not() -> None:
    """One line each, with before, after and the reason."""
    endpoint = Watched(check_interval=5.0)
    async with endpoint:
        sound = dict(endpoint.asker.replies)
        await asyncio.sleep(60.0)
        endpoint.asker.all_answer(Verdict.UNREACHABLE)
        await asyncio.sleep(60.0)
        endpoint.asker.replies = sound
        await asyncio.sleep(60.0)
    told = [
        (each["log_level"], each["before"], each["after"], each["reason"])
        for each in endpoint.log.entries
    ]
    assert told == [
        ("info", "unknown", "healthy", None),
        ("warning", "healthy", "offline", "unreachable"),
        ("info", "offline", "healthy", None),
    ]
    assert {each["endpoint"] for each in endpoint.log.entries} == {"a"}


@in_virtual_time
async def test_a_fault_of_our_own_does_not_end_the_watch() -> None:
    """It is told as an error, and the endpoint is asked again."""
    async with Watched(check_interval=5.0) as endpoint:
        endpoint.asker.broken = ZeroDivisionError("oh")
        await asyncio.sleep(6.0)
        assert endpoint.health == "unhealthy"
        assert "ZeroDivisionError" in (endpoint.view.last_error or "")
        errors = [each for each in endpoint.log.entries if each["log_level"] == "error"]
        assert {each["event"] for each in errors} == {"answer not read"}
        endpoint.asker.broken = None
        await asyncio.sleep(6.0)
        assert endpoint.health == "healthy"


@in_virtual_time
async def test_whoever_cannot_take_what_was_learnt_does_not_end_the_watch() -> None:
    """A fault of those who are told is logged; whoever waits for a round goes on, and the
    endpoint is asked again."""
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
        told = len(views)
        await asyncio.sleep(6.0)
        assert len(views) > told
        assert endpoint.health == "healthy"


# --- kinds ----------------------------------------------------------------------------------


@in_virtual_time
async def test_the_kind_is_found_out_and_found_out_anew_after_trouble() -> None:
    """Another server may have taken the place; it inherits nothing."""
    async with Watched(type="auto", check_interval=5.0) as endpoint:
        assert endpoint.view.profile is not None
        assert endpoint.view.profile.name == "ollama"
        assert endpoint.health == "healthy"
        endpoint.asker.all_answer(Verdict.UNREACHABLE)
        await asyncio.sleep(6.0)
        assert (endpoint.health, endpoint.view.profile.name) == ("offline", "ollama")
        endpoint.asker.replies = {"/v1/models": OPENAI_LIST}
        await asyncio.sleep(6.0)
        assert endpoint.health == "healthy"
        assert endpoint.view.profile.name == "openai-compatible"
        assert set(endpoint.view.models) == {canonical("m")}
        assert endpoint.view.version is None


@in_virtual_time
async def test_a_healthy_endpoint_is_not_asked_for_its_kind_again() -> None:
    """What it is was settled."""
    async with Watched(type="auto", check_interval=5.0) as endpoint:
        endpoint.asker.asked.clear()
        await asyncio.sleep(6.0)
        assert {path for _, path in endpoint.asker.asked} == {"/", "/api/ps"}


@in_virtual_time
async def test_an_endpoint_of_unknown_kind_gets_no_requests() -> None:
    """Nor questions that only one kind understands."""
    endpoint = Watched(type="auto")
    endpoint.asker.replies = {}
    async with endpoint:
        assert endpoint.view.profile is None
        assert not endpoint.view.routable
        await endpoint.watch.renew(Question.RESIDENT, 0.0)
        endpoint.watch.observe(None, LLAMA)
        await asyncio.sleep(1.0)
        assert "/api/ps" not in {path for _, path in endpoint.asker.asked}

"""The chat service's own view: exactly the documented tree, from what is known."""

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web

from olla.access.limit import Limit, LimitKind
from olla.access.policy import AccessPolicy
from olla.failures import Failed, Failure, Kind
from olla.fleet.health import Health
from olla.proxy.internal.routes import InternalRequest
from olla.surfaces.chat.api import TIERS
from olla.surfaces.chat.status import ChatStatus, in_words
from olla.surfaces.models.list_cache import ListCache
from tests.surfaces.conftest import ANYBODY
from tests.surfaces.known_fleet import KnownFleet, StillClock, tag, view

ASKED = SimpleNamespace(quota=SimpleNamespace(caller=ANYBODY))


class Recording:
    """What has been written."""

    written = 0
    pending = 0


class Recorder:
    """A store that counts how often it is asked."""

    def __init__(self) -> None:
        self.usage_writer: Recording | None = None
        self.away: str | None = None
        self.total = 0
        self.asked = 0

    async def tried(self, work: object) -> int:
        self.asked += 1
        if self.away is not None:
            raise Failed(Failure(Kind.STORE_AWAY, self.away))
        return self.total


class Request:
    """A GET."""

    method = "GET"


class Seen:
    """A status surface with all it knows."""

    def __init__(self, fleet: KnownFleet, clock: StillClock) -> None:
        self.recorder = Recorder()
        self.policy = AccessPolicy()
        self.requests = 7
        self.surface = ChatStatus(
            snapshot=lambda: fleet.snapshot,
            policy=lambda: self.policy,
            own=TIERS,
            recorder=cast(Any, self.recorder),
            requests=lambda _: self.requests,
            active=lambda: 3,
            catalogue=ListCache(),
            clock=clock,
        )

    async def get(self) -> dict[str, Any]:
        """What it answers."""
        answer = self.surface.routes()["/api/status"]
        response = await answer(cast(web.BaseRequest, Request()), cast(InternalRequest, ASKED))
        assert isinstance(response, web.Response)
        assert response.headers["Cache-Control"] == "no-store"
        shown: dict[str, Any] = json.loads(cast(bytes, response.body))
        return shown


@pytest.fixture
def seen(fleet: KnownFleet, clock: StillClock) -> Seen:
    """Of a fleet and a clock."""
    return Seen(fleet, clock)


async def test_the_tree_is_the_documented_one(
    seen: Seen, fleet: KnownFleet, clock: StillClock
) -> None:
    """No key more, none less, each of its type."""
    fleet.set(view("a", tag("smollm:latest", size=990_000_000)))
    clock.monotonic += 3600.9
    status = await seen.get()
    system = status["system"]
    assert set(system) == {"ram_total_gb", "ram_used_gb", "ram_percent", "cpu_percent"}
    assert all(isinstance(each, float) for each in system.values())
    assert 0 < system["ram_used_gb"] <= system["ram_total_gb"]
    assert 0 <= system["cpu_percent"] <= 100
    assert {name: each for name, each in status.items() if name != "system"} == {
        "server": {"uptime_seconds": 3600, "uptime_human": "1h 0m"},
        "ollama": {"online": True, "models": [{"name": "smollm:latest", "size_gb": 0.99}]},
        "usage": {
            "total_requests": 7,
            "active_anonymous_ips": 3,
            "anon_rate_limit": "10 req / 60s",
            "member_rate_limit": "30 req / 60s",
        },
    }


async def test_models_are_those_that_can_be_asked_now(seen: Seen, fleet: KnownFleet) -> None:
    """Of the Ollama servers that are there; none is offline."""
    fleet.set(
        view("a", tag("mistral:latest"), health=Health.OFFLINE),
        view("b", {"id": "other"}, type="vllm"),
    )
    assert (await seen.get())["ollama"] == {"online": False, "models": []}


async def test_the_limits_are_those_in_force(seen: Seen) -> None:
    """The configuration's before the surface's own, also where it says that there is none."""
    seen.policy = AccessPolicy(
        tiers={"anonymous": (Limit("x", LimitKind.REQUESTS, 5, 5),), "member": ()},
    )
    usage = (await seen.get())["usage"]
    assert usage["anon_rate_limit"] == "5 req / 60s"
    assert usage["member_rate_limit"] == "unlimited"


async def test_requests_are_counted_as_far_as_anybody_remembers(
    seen: Seen, clock: StillClock
) -> None:
    """The store is asked now and then, and what is written or waits meanwhile is added."""
    recorder, usage_writer = seen.recorder, Recording()
    recorder.usage_writer, recorder.total = usage_writer, 100
    usage_writer.pending = 2

    async def total() -> int:
        count: int = (await seen.get())["usage"]["total_requests"]
        return count

    assert await total() == 102
    usage_writer.written, usage_writer.pending = 2, 1
    assert await total() == 103
    assert recorder.asked == 1
    clock.monotonic += 11
    recorder.total = 500
    assert await total() == 501
    assert recorder.asked == 2


async def test_a_store_that_is_away_does_not_matter(seen: Seen, clock: StillClock) -> None:
    """This process's own count is told, or what was known last; nobody waits."""
    recorder = seen.recorder
    recorder.usage_writer, recorder.away = Recording(), "gone"
    assert (await seen.get())["usage"]["total_requests"] == 7
    recorder.away, recorder.total = None, 100
    assert (await seen.get())["usage"]["total_requests"] == 100
    recorder.away = "gone"
    clock.monotonic += 11
    assert (await seen.get())["usage"]["total_requests"] == 100
    assert recorder.asked == 1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0h 0m"), (59, "0h 0m"), (3600, "1h 0m"), (86399, "23h 59m"), (180_000, "2d 2h 0m")],
)
def test_a_time_in_words(seconds: int, words: str) -> None:
    """As the documentation has it, with days in front."""
    assert in_words(seconds) == words

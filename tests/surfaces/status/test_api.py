"""olla's own paths: health, readiness, status, statistics, process, metrics, version."""

import asyncio
from typing import Any

import pytest

from olla.failures import Failure, Kind
from olla.fleet.breaker import BreakerState
from olla.fleet.health import Health
from olla.fleet.instance import InFlightRequest
from olla.fleet.model_names import canonical
from olla.fleet.twins import Twins
from olla.record import AttemptRecord, RequestRecord
from olla.surfaces.status.api import StatusSurface
from olla.telemetry.metrics import Metrics
from olla.telemetry.traffic import Traffic
from tests.surfaces.conftest import ADMIN, Serve
from tests.surfaces.known_fleet import KnownFleet, StillClock, loaded, tag, view

PATHS = [
    "/internal/health",
    "/internal/ready",
    "/internal/status",
    "/internal/status/endpoints",
    "/internal/status/models",
    "/internal/stats/models",
    "/internal/process",
    "/internal/metrics",
    "/metrics",
    "/version",
]


class Router:
    """What the status tells of, and a client that asks."""

    def __init__(self, fleet: KnownFleet, clock: StillClock) -> None:
        self.twins = Twins()
        self.draining = False
        self.metrics = Metrics(version="1.2.3", snapshot=lambda: fleet.snapshot, twins=self.twins)
        self.traffic = Traffic(lambda: fleet.snapshot)
        self.surface = StatusSurface(
            snapshot=lambda: fleet.snapshot,
            twins=self.twins,
            metrics=self.metrics,
            traffic=self.traffic,
            clock=clock,
            version="1.2.3",
            draining=lambda: self.draining,
            open_connections=lambda: 7,
        )
        self.surface.describe("config/olla.yaml", "loaded-first")
        self.client: Any = None

    async def json(self, path: str) -> Any:
        response = await self.client.get(path)
        assert response.headers["Content-Type"] == "application/json"
        return await response.json()


@pytest.fixture
async def router(serve: Serve, fleet: KnownFleet, clock: StillClock) -> Router:
    """A router's status over a fleet to be set."""
    made = Router(fleet, clock)
    made.client = await serve(made.surface.routes(), caller=ADMIN)
    return made


def record(model: str, **more: Any) -> RequestRecord:
    """A finished request for a model."""
    more.setdefault("status", 200)
    return RequestRecord(
        id="r", method="POST", path="/api/chat", client="::1", started=10.0,
        started_wall=1_700_000_000.0, ended=12.0, model=model, endpoint="a", **more,
    )  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_every_path_is_for_reading(router: Router, fleet: KnownFleet, path: str) -> None:
    """GET answers, HEAD answers without a body, anything else is 405 and says what is allowed."""
    fleet.set(view("a"))
    assert (await router.client.get(path)).status == 200
    head = await router.client.head(path)
    assert head.status == 200
    assert await head.read() == b""
    refused = await router.client.post(path, data=b"x")
    assert refused.status == 405
    assert refused.headers["Allow"] == "GET, HEAD"
    assert (await refused.json())["error"]["code"] == "method_not_allowed"


async def test_health_is_of_the_process_alone(router: Router) -> None:
    """A router without a single endpoint is alive."""
    assert (await router.json("/internal/health"))["status"] == "healthy"


async def test_ready_needs_an_endpoint(router: Router, fleet: KnownFleet) -> None:
    """Readiness is 503 until one endpoint can take requests."""
    fleet.set(view("a", health=Health.OFFLINE), view("b", health=Health.UNKNOWN))
    response = await router.client.get("/internal/ready")
    assert response.status == 503
    assert int(response.headers["Retry-After"]) >= 1
    assert (await response.json())["endpoints_routable"] == 0
    fleet.set(view("a", health=Health.OFFLINE), view("b"))
    response = await router.client.get("/internal/ready")
    assert response.status == 200
    assert (await response.json())["endpoints_routable"] == 1


async def test_what_watches_the_router_waits_for_no_list(router: Router, fleet: KnownFleet) -> None:
    """While lists of ten thousand models are made for others, states and metrics are told."""
    fleet.set(view("a", tag("m")))
    async with router.surface._catalogue._slices._lock, asyncio.timeout(5):
        for path in PATHS:
            if path != "/internal/status/models":
                assert (await router.client.get(path)).status == 200, path


async def test_an_endpoint_of_unknown_kind_is_not_ready(router: Router, fleet: KnownFleet) -> None:
    """An endpoint that answers but whose kind is unknown can take no requests."""
    fleet.set(view("a", type="auto", profile=None))
    assert (await router.client.get("/internal/ready")).status == 503
    status = await router.json("/internal/status")
    assert status["endpoints"][0]["type"] == "auto"
    assert "kind of server" in status["endpoints"][0]["reason"]


async def test_draining_is_not_ready(router: Router, fleet: KnownFleet) -> None:
    """A router about to stop takes itself out of its balancer."""
    fleet.set(view("a"))
    router.draining = True
    assert (await router.client.get("/internal/ready")).status == 503
    assert (await router.json("/internal/status"))["status"] == "draining"
    assert (await router.client.get("/internal/health")).status == 200


async def test_status_tells_all_of_an_endpoint(
    router: Router, fleet: KnownFleet, clock: StillClock
) -> None:
    """What an operator asks of an endpoint stands in one object, times as wall-clock time."""
    fleet.set(
        view(
            "a",
            tag("llama3:latest"),
            tag("alias:latest"),
            resident=(loaded("llama3:latest", vram=123, expires_at=1_800_000_060.0),),
            version="0.12.0",
            checked_at=clock.now() - 2.0,
            next_check_at=clock.now() + 3.0,
        )
    )
    router.twins.follow(fleet.snapshot, 0.0)
    twin = router.twins.by_name["a"]
    twin.sent(InFlightRequest(twin.names[canonical("llama3")], 0.0, 1.0), 0.0)
    failure = Failure(Kind.CONNECT_REFUSED, "refused", endpoint="a")
    router.traffic(
        record(
            "llama3",
            attempts=[
                AttemptRecord("a", "", 10.0, failure=failure),
                AttemptRecord("a", "", 10.0, first_byte=10.5, status=200),
            ],
        )
    )
    status = await router.json("/internal/status")
    assert status["version"] == "1.2.3"
    assert status["settings"] == "config/olla.yaml"
    assert status["policy"] == "loaded-first"
    assert status["open_connections"] == 7
    assert status["requests"]["total"] == 1
    assert status["requests"]["in_flight"] == 1
    assert status["counts"] == {"endpoints": 1, "endpoints_routable": 1, "models": 2}
    (endpoint,) = status["endpoints"]
    expected = {
        "name": "a",
        "url": "http://a:11434",
        "type": "ollama",
        "status": "healthy",
        "breaker": "closed",
        "routable": True,
        "reason": None,
        "stuck": [],
        "refused": [],
        "priority": 100,
        "in_flight": 1,
        "models": 2,
        "models_cut": False,
        "resident": [
            {
                "name": "llama3:latest",
                "vram_bytes": 123,
                "expires_at": "2027-01-15T08:01:00.000Z",
            }
        ],
        "version": "0.12.0",
        "last_error": None,
        "checked_at": "2027-01-15T07:59:58.000Z",
        "next_check_at": "2027-01-15T08:00:03.000Z",
        "models_at": "2027-01-15T07:59:59.000Z",
        "attempts": {"succeeded": 1, "failed": 1, "abandoned": 0},
        "ttfb_seconds": {"mean": 0.5, "p50": 0.5, "p95": 0.5},
    }
    assert endpoint == expected
    assert (await router.json("/internal/status/endpoints"))["endpoints"] == [expected]


@pytest.mark.parametrize(
    ("more", "overall", "words"),
    [
        ({"health": Health.OFFLINE, "last_error": "refused"}, "unavailable", "does not answer"),
        ({"health": Health.CONFIG_ERROR}, "unavailable", "credentials"),
        ({"health": Health.UNKNOWN}, "unavailable", "not asked yet"),
        ({"breaker": BreakerState.OPEN}, "healthy", "recent requests failed"),
        ({"breaker": BreakerState.HALF_OPEN}, "healthy", "one at a time"),
        ({"ramp": 4}, "healthy", "4 requests at a time"),
    ],
)
async def test_what_is_wrong_is_said_in_words(
    router: Router, fleet: KnownFleet, more: dict[str, Any], overall: str, words: str
) -> None:
    """An endpoint that gets no or few requests says why."""
    fleet.set(view("a", **more))
    status = await router.json("/internal/status")
    assert status["status"] == overall
    assert words in status["endpoints"][0]["reason"]


async def test_a_stuck_or_refused_model_is_named(router: Router, fleet: KnownFleet) -> None:
    """As the endpoint calls it, and what becomes of its requests."""
    fleet.set(view("gpu", tag("llama3:latest")))
    router.twins.follow(fleet.snapshot, 0.0)
    twin = router.twins.by_name["gpu"]
    instance = twin.names[canonical("llama3")]
    twin.set_stuck(instance, stuck=True)
    (endpoint,) = (await router.json("/internal/status/endpoints"))["endpoints"]
    assert endpoint["stuck"] == ["llama3:latest"]
    assert "is stuck on llama3:latest" in endpoint["reason"]
    twin.set_stuck(instance, stuck=False)
    twin.refused(instance, 1000.0, 60.0)
    (endpoint,) = (await router.json("/internal/status/endpoints"))["endpoints"]
    assert endpoint["refused"] == ["llama3:latest"]
    assert "has refused requests for llama3:latest" in endpoint["reason"]


async def test_part_of_a_fleet_is_degraded(router: Router, fleet: KnownFleet) -> None:
    """One endpoint down and another up is neither healthy nor unavailable."""
    fleet.set(view("a"), view("b", health=Health.OFFLINE))
    assert (await router.json("/internal/status"))["status"] == "degraded"


async def test_models_show_every_place(router: Router, fleet: KnownFleet) -> None:
    """The models' status also tells of places that are down."""
    fleet.set(
        view("a", tag("llama3:latest"), resident=(loaded("llama3:latest", vram=5),)),
        view("b", tag("llama3:latest"), health=Health.OFFLINE),
    )
    body = await router.json("/internal/status/models")
    assert body["total"] == 1
    (model,) = body["models"]
    assert model["name"] == "llama3:latest"
    assert model["family"] == "llama"
    assert [(place["endpoint"], place["routable"]) for place in model["endpoints"]] == [
        ("a", True),
        ("b", False),
    ]
    assert model["endpoints"][0]["vram_bytes"] == 5


async def test_model_statistics_are_per_model(router: Router, fleet: KnownFleet) -> None:
    """Requests, failures, tokens and latencies are told per model, the busiest first."""
    fleet.set(view("a", tag("llama3:latest"), tag("mistral:7b")))
    router.traffic(record("mistral:7b"))
    for _ in range(2):
        router.traffic(record("LLAMA3", prompt_tokens=3, output_tokens=4, first_byte=10.25))
    router.traffic(record("llama3", status=502, failure=Failure(Kind.RESET, "reset")))
    first, second = (await router.json("/internal/stats/models"))["models"]
    assert (first["name"], first["requests"], first["failures"]) == ("llama3:latest", 3, 1)
    assert (first["prompt_tokens"], first["output_tokens"]) == (6, 8)
    assert first["ttfb_seconds"]["p95"] == 0.25
    assert first["duration_seconds"]["mean"] == 2.0
    assert second["name"] == "mistral:7b"


async def test_the_process_is_told_of(router: Router) -> None:
    """Memory, CPU, tasks and connections are numbers."""
    body = await router.json("/internal/process")
    assert body["pid"] > 0
    assert body["rss_bytes"] > 1_000_000
    assert body["tasks"] >= 1
    assert body["open_connections"] == 7
    assert len(body["gc"]) == 3


async def test_metrics_are_prometheus_text(router: Router, fleet: KnownFleet) -> None:
    """Both paths serve the text format."""
    fleet.set(view("a"))
    for path in ("/metrics", "/internal/metrics"):
        response = await router.client.get(path)
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert 'olla_build_info{version="1.2.3"} 1.0' in await response.text()


async def test_version_names_the_program(router: Router) -> None:
    """`/version` says what this is, and every link on it leads somewhere of olla's own."""
    body = await router.json("/version")
    assert (body["name"], body["version"]) == ("olla", "1.2.3")
    assert "ollama" in body["supported_backends"]
    links = set(body["links"].values()) - {"/olla/models"}
    assert links <= set(router.surface.routes())

"""The life of one request on streams in memory. No path leaks leases or tickets."""

import asyncio
import itertools
import json

from olla.access.policy import AccessPolicy
from olla.admission.dispatcher import Dispatcher
from olla.admission.queue_types import Lease
from olla.clock import SystemClock
from olla.dialects.paths import Paths, ScopeSpec
from olla.failures import Failure, Kind
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.health import Health
from olla.fleet.model_names import canonical
from olla.fleet.profiles import PROFILES
from olla.fleet.snapshot import EndpointView, Model, ResidentModel, Snapshot
from olla.proxy.auth.authorize import authorize
from olla.proxy.background.model_loader import ModelLoader
from olla.proxy.bounds.body_budget import BodyBudget
from olla.proxy.bounds.timer_wheel import TimerWheel
from olla.proxy.exchange.admission import Admission
from olla.proxy.exchange.attempt import Timeouts
from olla.proxy.exchange.context import RequestConfig, Services, Upstreams
from olla.proxy.exchange.exchange import Exchange, record_choice
from olla.proxy.server.fast_path import FastRequest
from olla.proxy.server.hot_head import CacheSize, HotHead
from olla.record import RequestRecord
from olla.routing.decision import RoutingOptions
from olla.routing.policies import POLICIES
from tests.gates import open_authenticator
from tests.proxy.streams import Client, idle_endpoint, new_pool
from tests.views import features, view

PATHS = Paths(
    [ScopeSpec(row.name, row.prefixes, row.dialects) for row in PROFILES.values()],
    root_enabled=True,
)
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":false}'
FINAL = b'{"model":"m","done":true,"done_reason":"stop","prompt_eval_count":3,"eval_count":5}'
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(FINAL),
    FINAL,
)
BUSY = b'HTTP/1.1 503 Busy\r\nContent-Length: 16\r\n\r\n{"error":"busy"}'


class StaticFleet:
    """A fleet with a fixed snapshot, which records the reported results."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.observed: list[tuple[str, Failure | None]] = []
        self.refreshed = 0

    def observe(self, endpoint: str, failure: Failure | None, model: str | None) -> None:
        """See `Fleet.observe`."""
        self.observed.append((endpoint, failure))

    def probe_now(self, endpoint: str) -> None:
        """See `Fleet.probe_now`."""

    async def refresh(self, what: str, max_age: float, timeout: float) -> Snapshot:
        """See `Fleet.refresh`."""
        self.refreshed += 1
        return self.snapshot


class FakeRouter:
    """Endpoints with idle connections, and the dependencies of exchanges."""

    def __init__(self, *names: str, slots: int = 4, policy: str = "priority") -> None:
        clock = SystemClock()
        self.pool = new_pool()
        specs = [
            EndpointSpec(name, "127.0.0.1", 9 + at, priority=100 - at, num_parallel=slots)
            for at, name in enumerate(names)
        ]
        self.endpoints = {spec.name: idle_endpoint(self.pool, spec) for spec in specs}
        views = [
            EndpointView(
                spec,
                at,
                PROFILES["ollama"],
                Health.HEALTHY,
                models={canonical("m"): Model("m:latest")},
                resident={canonical("m"): ResidentModel("m:latest")},
                models_at=clock.now(),
                resident_at=clock.now(),
            )
            for at, spec in enumerate(specs)
        ]
        self.fleet = StaticFleet(Snapshot.of(views))
        self.dispatcher = Dispatcher(POLICIES[policy], RoutingOptions())
        timers = TimerWheel()
        ids = (str(number) for number in itertools.count())
        admission = Admission(
            self.dispatcher,
            clock,
            lambda ended: ModelLoader(self.pool, ended, timeout=1.0, new_id=lambda: next(ids)),
            snapshot=lambda: self.fleet.snapshot,
        )
        self.services = Services(
            clock,
            open_authenticator(AccessPolicy()),
            lambda record: None,
            ids,
            BodyBudget(1 << 30, 1 << 20),
            timers,
        )
        self.upstreams = Upstreams(clock, admission, self.fleet, self.pool, timers)
        self.config = RequestConfig(
            timeouts=Timeouts(), max_body=1 << 20, aliases={}, refresh_timeout=1.0
        )
        self.over_count = 0
        self.crashes: list[Exception] = []

    def over(self, exchange: Exchange) -> None:
        """See `ExchangeOwner.over`."""
        self.over_count += 1

    def crashed(self, record: RequestRecord, error: Exception) -> None:
        """See `ExchangeOwner.crashed`."""
        self.crashes.append(error)

    def begin(self, body: bytes = BODY) -> tuple[Exchange, Client]:
        """Start an exchange for a complete request."""
        target = PATHS.resolve("POST", "/api/chat")
        fields = ((b"Content-Type", b"application/json"),)
        incoming = FastRequest(HotHead("/api/chat", fields, target, CacheSize()), "10.0.0.1", 2)
        clock, client = self.services.clock, Client()
        record = RequestRecord("1", "POST", "/api/chat", "10.0.0.1", clock.now(), clock.wall())
        exchange = Exchange(
            self.services,
            self.upstreams,
            self.config,
            incoming,
            client,
            target,
            record,
            self,
        )
        exchange.enter(authorize(self.services.authenticator, incoming, target, None))
        exchange.begin(body)
        return exchange, client

    def sent_to(self, name: str) -> bytes:
        """Return the bytes sent to an endpoint."""
        return self.endpoints[name].transport.written

    def check_clean(self, count: int = 1) -> None:
        """Check that every request has ended once and that nothing leaked."""
        assert self.over_count == count
        assert self.dispatcher.leases == 0
        assert self.dispatcher.waiting == 0
        assert self.crashes == []


async def test_a_response_is_relayed_and_recorded() -> None:
    """The record has token counts, status and endpoint; the lease is released."""
    router = FakeRouter("a")
    exchange, client = router.begin()
    assert b"POST /api/chat" in router.sent_to("a")
    assert router.dispatcher.leases == 1
    router.endpoints["a"].send(RESPONSE)
    record = exchange.record
    assert (record.status, record.endpoint, record.failure) == (200, "a", None)
    assert (record.prompt_tokens, record.output_tokens) == (3, 5)
    assert client.received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"X-Olla-Endpoint: a\r\n" in client.received
    assert router.fleet.observed == [("a", None)]
    router.check_clean()


async def test_a_failure_before_the_first_byte_is_retried_on_the_next_endpoint() -> None:
    """The client gets only the second response, and the number of attempts."""
    router = FakeRouter("a", "b")
    exchange, client = router.begin()
    router.endpoints["a"].send(BUSY)
    assert client.received == b""
    router.endpoints["b"].send(RESPONSE)
    assert client.received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"X-Olla-Attempts: 2\r\n" in client.received
    assert [each.endpoint for each in exchange.record.attempts] == ["a", "b"]
    assert router.fleet.observed[0][1] is not None
    router.check_clean()


async def test_the_last_endpoints_error_is_relayed() -> None:
    """Without another endpoint, the client gets the error as the endpoint sent it."""
    router = FakeRouter("a")
    exchange, client = router.begin()
    router.endpoints["a"].send(BUSY)
    assert client.received.startswith(b"HTTP/1.1 503 ")
    assert client.received.endswith(b'{"error":"busy"}')
    assert exchange.record.status == 503
    router.check_clean()


async def test_a_response_that_has_begun_is_not_retried() -> None:
    """The client gets an in-band error, and the connection is closed without a regular end."""
    router = FakeRouter("a", "b")
    exchange, client = router.begin(BODY.replace(b"false", b"true"))
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n"
    )
    router.endpoints["a"].send(head + b"\r\n", b'e\r\n{"done":false}\r\n')
    router.endpoints["a"].close()
    assert router.sent_to("b") == b""
    assert b'"error"' in client.received
    assert not client.received.endswith(b"0\r\n\r\n")
    assert not client.persistent
    failure = exchange.record.failure
    assert failure is not None
    assert failure.kind is Kind.BODY_TRUNCATED
    router.check_clean()


async def test_a_disconnect_stops_the_endpoints_work() -> None:
    """At once; no result is reported for the endpoint."""
    router = FakeRouter("a")
    exchange, _ = router.begin()
    exchange.abandon()
    assert router.endpoints["a"].transport.aborted
    assert exchange.record.status == 499
    assert router.fleet.observed == []
    router.check_clean()


async def test_a_request_waits_for_a_slot() -> None:
    """It is sent when the previous request has ended."""
    router = FakeRouter("a", slots=1, policy="shortest-expected-delay")
    _, first = router.begin()
    waiting, second = router.begin()
    assert router.dispatcher.waiting == 1
    router.endpoints["a"].send(RESPONSE)
    assert first.received.endswith(FINAL)
    await asyncio.sleep(0)
    assert waiting.attempt is not None
    router.endpoints["a"].send(RESPONSE)
    assert second.received.endswith(FINAL)
    assert b"X-Olla-Queue-Time: " in second.received
    router.check_clean(2)


async def test_a_disconnected_client_leaves_the_queue() -> None:
    """The request is never sent to the endpoint."""
    router = FakeRouter("a", slots=1, policy="shortest-expected-delay")
    _, _ = router.begin()
    waiting, client = router.begin()
    waiting.half_closed()
    assert router.dispatcher.waiting == 0
    assert client.received.startswith(b"HTTP/1.1 499")
    router.endpoints["a"].send(RESPONSE)
    assert router.sent_to("a").count(b"POST ") == 1
    router.check_clean(2)


async def test_model_lists_are_refreshed_once_before_a_model_is_not_found() -> None:
    """The model may have been pulled a moment ago."""
    router = FakeRouter("a")
    exchange, client = router.begin(BODY.replace(b'"m"', b'"other"'))
    assert exchange.task is not None
    await asyncio.gather(exchange.task, return_exceptions=True)
    assert router.fleet.refreshed == 1
    assert client.received.startswith(b"HTTP/1.1 404 ")
    assert exchange.record.decision == "rejected"
    router.check_clean()


async def test_an_invalid_json_body_is_rejected() -> None:
    """Before any endpoint gets a request."""
    router = FakeRouter("a")
    _, client = router.begin(b"nonsense")
    assert client.received.startswith(b"HTTP/1.1 400 ")
    assert "error" in json.loads(client.received.partition(b"\r\n\r\n")[2])
    assert router.sent_to("a") == b""
    router.check_clean()


async def test_a_stop_ends_a_request_with_an_error() -> None:
    """As during a drain; before the first byte it is a complete error response."""
    router = FakeRouter("a")
    exchange, client = router.begin()
    exchange.stop(Failure(Kind.DRAINING, "the router is shutting down"))
    assert client.received.startswith(b"HTTP/1.1 503 ")
    assert router.endpoints["a"].transport.aborted
    router.check_clean()


def test_a_choice_is_recorded_with_the_endpoints_spelling_of_the_model() -> None:
    """Endpoint, its type, decision, reason and model."""
    dispatcher = Dispatcher(POLICIES["priority"], RoutingOptions())
    snapshot = Snapshot.of([view("gpu-1", models=["m:latest"], resident=["m:latest"])])
    lease = dispatcher.ask(features("m"), snapshot, "M", 0.0)
    assert isinstance(lease, Lease)
    record = RequestRecord("1", "POST", "/api/chat", "127.0.0.1", 0.0, 0.0)
    record_choice(record, lease.choice, "M")
    assert (record.endpoint, record.endpoint_type) == ("gpu-1", "ollama")
    assert (record.decision, record.reason) == ("routed", "model_loaded")
    assert record.model == "m:latest"

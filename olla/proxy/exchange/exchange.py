"""The life of one request: a call per station, in the request's order.

Understand, choose, try, relay, and at the end one record of what happened. Every station's own
question is answered elsewhere; this file only knows their order, and that another endpoint may be
tried until the first byte has gone to the client.

A state machine in callbacks: a task with its futures costs more than everything it calls. It
waits for one of: its turn in the queue, an attempt, lists that are being renewed.
"""

import asyncio
from math import ceil
from typing import Final, Protocol, assert_never

from olla.admission.queue_types import Lease, Ticket
from olla.dialects.dialect import Right
from olla.dialects.paths import BodyUse, Target
from olla.dialects.rewrite import Edit
from olla.failures import Failed, Failure, Kind
from olla.proxy.auth.authenticate import Quota
from olla.proxy.bounds.body_budget import BodyCharge
from olla.proxy.exchange.attempt import Attempt, load_patience
from olla.proxy.exchange.attempt_result import (
    finish_attempt,
    relayed_error,
    retry_pause,
    upstream_error,
)
from olla.proxy.exchange.context import RequestConfig, Services, Upstreams
from olla.proxy.exchange.failover import elsewhere, is_an_answer
from olla.proxy.exchange.message_building import build_request, build_response
from olla.proxy.exchange.request_parsing import LONG, Scanned, parse_request, scan
from olla.proxy.exchange.sse_keepalive import SseKeepalive, keepalive_for
from olla.proxy.http.error_response import error_answer
from olla.proxy.http.message_fields import Passed
from olla.proxy.http.request import IncomingRequest
from olla.proxy.http.response_head import ResponseHead
from olla.proxy.upstream.pool import UpstreamConnection
from olla.proxy.upstream.relay import Downstream, Relay
from olla.record import AttemptRecord, RequestRecord
from olla.routing.decision import (
    Choice,
    ChooseEndpoint,
    ChooseFallback,
    ChooseInstance,
    Reason,
    Refuse,
)
from olla.routing.features import Features
from olla.routing.policies.steady import Steady
from olla.tasks import spawn

__all__ = ["ClientConnection", "ClientListener", "Exchange", "ExchangeOwner", "record_choice"]

_STEADY: Final = Steady()
_WAITED: Final = frozenset({Reason.QUEUED, Reason.COLD_LOAD, Reason.MODEL_LOADING})
_LISTS_AGE_MAX = 1.0
"""Seconds. Bounds how often requests for unknown models make olla ask the endpoints."""
# Members of an Enum take a slow way when they are looked up on their class, 0.1 µs each time.
_MANAGE: Final = Right.MANAGE
_CLIENT_GONE: Final = Kind.CLIENT_GONE
_STREAMED: Final = BodyUse.STREAMED
_GONE: Final = Failure(Kind.CLIENT_GONE, "the client went away")


class ExchangeOwner(Protocol):
    """Whoever began an exchange."""

    def over(self, exchange: "Exchange") -> None:
        """Nothing more will be written; the record is complete. Called once."""
        ...

    def crashed(self, record: RequestRecord, error: Exception) -> None:
        """Olla's own code has failed at it; the client is told so."""
        ...


class ClientListener(Protocol):
    """Something that has to know when its client is gone."""

    def abandon(self, failure: Failure) -> None:
        """The client is gone; `failure` says how."""
        ...

    def half_closed(self) -> None:
        """The client has closed its side of the connection, or all of it: nobody can tell. What
        the router answers itself can still be written."""
        ...


class ClientConnection(Protocol):
    """A client's connection, as far as it tells what becomes of the client."""

    def carries(self, exchange: ClientListener) -> None:
        """An exchange begins: it is told from now on."""
        ...


class Exchange:
    """One client request with its answer."""

    __slots__ = (
        *("_asked_for", "_body", "_body_read", "_charge", "_counted", "_edits", "_explanation"),
        *("_failure", "_features", "_half_closed", "_host", "_incoming", "_pause", "_refreshed"),
        *("_config", "_keepalive", "_scanned", "_services", "_target", "_ticket", "_trace"),
        "_upstreams",
        *("attempt", "downstream", "finished", "lease", "record", "task", "quota"),
    )

    def __init__(
        self,
        services: Services,
        upstreams: Upstreams,
        config: RequestConfig,
        incoming: IncomingRequest,
        downstream: Downstream,
        target: Target,
        record: RequestRecord,
        host: ExchangeOwner,
    ) -> None:
        self._services = services
        self._upstreams = upstreams
        self._config = config
        self._incoming = incoming
        self.downstream = downstream
        self._target = target
        self.record = record
        self._host = host
        self._body = b""
        self._edits: tuple[Edit, ...] = ()
        self._scanned: Scanned = None
        self._charge: BodyCharge | None = None
        self._body_read = not incoming.has_body
        self._asked_for: str | None = None
        self._counted = False
        self._features: Features | None = None
        self.attempt: Attempt | None = None
        self._trace: AttemptRecord | None = None
        self.lease: Lease | None = None
        self._ticket: Ticket | None = None
        self.task: asyncio.Task[None] | None = None
        self._failure: Failure | None = None
        self._refreshed = False
        self._pause: float | None = None
        self._explanation: str | None = None
        self._keepalive: SseKeepalive | None = None
        self._half_closed = False
        """The client may be gone: no endpoint is to work for it."""
        self.finished = False
        self.quota: Quota | None = None
        """Who asks, once that is known."""
        record.dialect = target.dialect.name
        record.operation = target.word
        record.strategy = config.strategy

    def enter(self, quota: Quota) -> None:
        """It is known who asks, and that it may."""
        self.task = None
        self.quota = quota
        quota.note(self.record)

    def hold(self, charge: BodyCharge) -> None:
        """Its body is coming in: what it holds of the body budget is released at the end, or
        once the body is needed no more."""
        self._charge = charge

    def begin(self, body: bytes) -> None:
        """Called once the body has been read (empty if it is streamed)."""
        assert self.quota is not None
        try:
            if self._target.body is not _STREAMED:
                self._body_read = True
                self.record.bytes_in = len(body)
            if self.finished:
                self._drop_body()  # it was stopped while its body came in
                return
            self._body = body
            if len(body) > LONG:
                self.task = spawn(self._scan(self.quota), self.crashed)
            else:
                self._understand(self.quota)
        except Exception as error:
            self.crashed(error)

    async def _scan(self, quota: Quota) -> None:
        """Read a long body a little in each turn of the loop, then go on."""
        try:
            steps = scan(self._target, self._incoming, self._body)
            self._scanned = await self._services.time_slices.run(steps)
        except Failed as failed:
            self._failure = failed.failure
        self.task = None
        self._understand(quota)

    def _understand(self, quota: Quota) -> None:
        if self._failure is None:
            try:
                self._take_in(quota)
            except Failed as failed:
                self._failure = failed.failure
        quota.pay(self._features, self._paid)  # what is refused counts against the limits, too

    def _take_in(self, quota: Quota) -> None:
        config, record = self._config, self.record
        self._features, self._edits, self._counted, self._explanation = parse_request(
            config,
            self._upstreams,
            self._target,
            self._incoming,
            record,
            self._body,
            quota.caller,
            self._scanned,
        )
        self._asked_for = record.model
        if config.wait_keepalive and record.streaming:
            cors = self._incoming.cors
            self._keepalive = keepalive_for(
                self._services, config.wait_keepalive, self._target, self.downstream, record, cors
            )

    def _paid(self, refused: Failure | None) -> None:
        """Its limits were charged, or refuse it."""
        failure = refused or self._failure
        if failure is None:
            self._guarded(None)
        elif not self.finished:
            self.refuse(failure)

    def stop(self, failure: Failure) -> None:
        """End it now, with an error the client can read."""
        attempt = self.attempt
        if attempt is not None and attempt.relay is not None:
            # As if the endpoint had broken off: what follows is the same.
            attempt.relay.stop(failure)
        else:
            self._let_go(failure)
            self.refuse(failure)

    def abandon(self, failure: Failure = _GONE) -> None:
        """The client has gone: so is the reason for the endpoint's work."""
        if self.finished:
            return
        self._let_go(failure)
        self.record.failure = failure
        self.record.status = self.record.status or failure.status
        self._over()

    def half_closed(self) -> None:
        """The client has closed its side, as one that is gone has. No endpoint works for it any
        more, which would be for nothing most of the time; what needs none is still answered."""
        self._half_closed = True
        if not self.finished and (self._ticket is not None or self.lease is not None):
            self.stop(_left())

    def refuse(self, failure: Failure) -> None:
        """Answer with an error in the dialect of the path."""
        record, downstream = self.record, self.downstream
        record.failure = failure
        record.status = failure.status
        if not self._body_read:
            downstream.persistent = False
        keepalive = self._keepalive
        if keepalive is not None and keepalive.begun:
            record.status = 200
            record.bytes_out = keepalive.fail(failure)
            self._over()
            return
        now = self._services.clock.now()
        answer = error_answer(
            failure,
            self._target.dialect,
            self._services.date_header.field(now) + self._fields(now) + self._limits(),
            keep_alive=downstream.persistent,
            minor=downstream.minor,
            bodiless=self._incoming.method == "HEAD",
        )
        record.bytes_out = len(answer)
        downstream.write(answer)
        self._over()

    def crashed(self, error: Exception) -> None:
        """Olla's own code has failed at it: answer, and give everything back."""
        self._host.crashed(self.record, error)
        if self.finished:
            return
        failure = Failure(Kind.INTERNAL, "the router failed at this request; its log has more")
        self._let_go(failure)
        if self.record.first_byte is None:
            self.refuse(failure)
            return
        self.record.failure = failure  # in the middle of an answer: only its end can tell
        self.downstream.persistent = False
        self._over()

    def _let_go(self, failure: Failure) -> None:
        """Give back whatever it holds or waits for."""
        if self.task is not None:
            self.task.cancel()
            self.task = None
        if self._ticket is not None:
            self._upstreams.admission.leave(self._ticket)
            self._ticket = None
        if self.attempt is not None:
            self.attempt.abort()
            self._attempt_over(failure)

    def _over(self) -> None:
        if self._keepalive is not None:
            self._keepalive.stop()
        self._drop_body()
        if not self.finished:
            self.finished = True
            if self.quota is not None:
                self.quota.settle(self.record)
            self._host.over(self)

    def _drop_body(self) -> None:
        charge, self._charge = self._charge, None
        if charge is not None:
            charge.release()
        self._body = b""
        self._scanned = None

    # --- what is asked, and where it goes ---------------------------------------------------

    def _enter(self) -> None:
        """Get a lease, or wait for one."""
        assert self._features is not None
        entered = self._upstreams.admission.enter(
            self._features,
            self._asked_for or "",
            self._granted,
            _STEADY if self._target.right is _MANAGE else None,
            self._counted,
            self.record.started,
        )
        match entered:
            case Lease() | Refuse():
                self._entered(entered)
            case Ticket():
                self._ticket = entered
                self.record.predicted = self.record.predicted or entered.predicted
                if self._half_closed:
                    self.stop(_left())
            case never:
                assert_never(never)

    def _granted(self, granted: Lease | Refuse) -> None:
        """Its turn in the queue has come, perhaps as its client left."""
        self._ticket = None
        if not self.finished:
            self._guarded(granted)
            return
        match granted:
            case Lease():
                self._upstreams.admission.release(granted, self._services.clock.now())
            case Refuse():
                pass
            case never:
                assert_never(never)

    def _guarded(self, granted: Lease | Refuse | None, over: Failure | None = None) -> None:
        """Go on, from a callback: None is to ask again, after the try that ended so (`over`)."""
        try:
            if over is not None:
                self._attempt_over(over)
            if granted is None:
                self._enter()
            else:
                self._entered(granted)
        except Failed as failed:
            self.refuse(failed.failure)
        except Exception as error:
            self.crashed(error)

    def _entered(self, granted: Lease | Refuse) -> None:
        match granted:
            case Lease():
                self._leased(granted)
            case Refuse():
                self._rejected(granted)
            case never:
                assert_never(never)

    def _leased(self, lease: Lease) -> None:
        record = self.record
        if self._half_closed:
            self._upstreams.admission.release(lease, self._services.clock.now())
            self.refuse(_left())
            return
        if lease.waited > 0 and lease.choice.reason in _WAITED:
            record.queue_seconds = lease.waited
        if record.predicted is None:
            record.predicted = lease.predicted
        self._features = lease.features
        self._try(lease)

    def _rejected(self, refusal: Refuse) -> None:
        if self._failure is not None:
            self.refuse(self._failure)  # of the last endpoint that was tried
            return
        if refusal.reason is Reason.MODEL_NOT_FOUND and not self._refreshed:
            # Somebody may have pulled it a moment ago.
            self._refreshed = True
            self.task = spawn(self._renew_lists(), self.crashed)
            return
        record = self.record
        record.decision, record.reason = "rejected", refusal.reason.value
        self.refuse(refusal.failure)

    async def _renew_lists(self) -> None:
        fleet, timeout = self._upstreams.fleet, self._config.refresh_timeout
        await fleet.refresh("models", _LISTS_AGE_MAX, timeout)
        self.task = None
        self._guarded(None)

    # --- one try ----------------------------------------------------------------------------

    def _try(self, lease: Lease) -> None:
        """Try one endpoint."""
        upstreams, config = self._upstreams, self._config
        record, choice = self.record, lease.choice
        self.lease = lease
        record_choice(record, choice, self._asked_for)
        self._trace = AttemptRecord(choice.twin.name, record.reason, lease.granted_at)
        record.attempts.append(self._trace)
        try:
            request = build_request(
                self._incoming,
                self._target,
                self._body,
                self._asked_for,
                choice,
                record.id,
                config.via,
                self._edits,
                self._scanned,
            )
        except Failed as failed:
            self._attempt_over(failed.failure)
            raise
        self.attempt = Attempt(
            upstreams.pool,
            upstreams.timers,
            choice.twin.view.spec,
            request,
            config.timeouts,
            self,
            load=load_patience(choice, config.timeouts.first_byte, lease.granted_at),
        )
        self.attempt.start()

    def relay(self, connection: UpstreamConnection, head: ResponseHead) -> Relay:
        """What relays the answer, if nothing is found wrong with it before its first byte."""
        downstream, keepalive = self.downstream, self._keepalive
        begun = keepalive is not None and keepalive.begun
        return Relay(
            connection,
            downstream,
            self._target.dialect,
            self._target.operation,
            head,
            self._begin_answer,
            endpoint=self.record.endpoint or "",
            trailer=self._total_time if downstream.wants_trailers and not begun else None,
            begun=begun,
            keep=self.record.content is not None,
        )

    def _begin_answer(self, head: ResponseHead) -> bytes:
        """The point of no return: the first byte of the answer goes to the client, after its head
        with olla's fields. No other endpoint will be asked any more."""
        record, services = self.record, self._services
        now = services.clock.now()
        assert self._trace is not None
        self._drop_body()
        record.status = self._trace.status = head.status
        record.first_byte = self._trace.first_byte = now
        if head.status >= 400:
            self._pause = retry_pause(head.passed, services.clock.wall())
        elif self.lease is not None:
            self._upstreams.admission.began(self.lease, now)
        begun = self._keepalive is not None and self._keepalive.stop()
        fields, limits = self._fields(now), self._limits()
        if not head.passed.plain:
            fields = self._of_now(head.passed, now) + fields
        formed = build_response(
            head,
            self.downstream,
            fields + limits,
            body_read=self._body_read,
            limited=bool(limits),
        )
        return b"" if begun else formed

    def relayed(self) -> None:
        """The answer has gone to the client, as far as it went."""
        attempt, record = self.attempt, self.record
        assert attempt is not None
        assert attempt.relay is not None
        failure = attempt.relay.failure
        if failure is None and record.status >= 400:
            failure = relayed_error(record.endpoint or "", record.status, self._pause)
        try:
            self._attempt_over(failure)
        except Exception as error:
            self.crashed(error)
        else:
            self._over()

    def accepts(self, head: ResponseHead) -> bool:
        """The endpoint cannot now: try another where there is one, else pass on what it said."""
        assert self.attempt is not None
        assert self.lease is not None
        assert self._trace is not None
        view = self.lease.choice.view
        self._trace.status = head.status
        pause = retry_pause(head.passed, self._services.clock.wall())
        failure = upstream_error(view.name, head.status, pause)
        if not is_an_answer(self._target, view, head.status):
            if head.status == 404:
                self._upstreams.fleet.probe_now(view.name)
            if self.elsewhere(failure):
                self.attempt.abort()
                self.try_next(failure)
                return False
        if self._keepalive is None or not self._keepalive.begun:
            return True
        # A stream has begun, in which an error can only be told.
        self.attempt.abort()
        self._attempt_over(failure)
        self.refuse(failure)
        return False

    def failed(self, failure: Failure) -> None:
        """Nothing went to the client: try elsewhere, where that helps and does no harm."""
        try:
            if self.elsewhere(failure):
                self.try_next(failure)
            else:
                self._attempt_over(failure)
                self.refuse(failure)
        except Exception as error:
            self.crashed(error)

    def elsewhere(self, failure: Failure) -> bool:
        """Whether another endpoint is to be tried after this; if so it will not be this one."""
        assert self._features is not None
        assert self._trace is not None
        at = self._trace.endpoint
        features = elsewhere(self._upstreams, self._target, self._features, at, failure)
        if features is None:
            return False
        self._features = features
        return True

    def try_next(self, failure: Failure) -> None:
        """The try has failed, and another endpoint is to be tried."""
        self._failure = failure
        self._guarded(None, over=failure)

    def _fields(self, now: float) -> bytes:
        fields = self._services.response_headers.fields(self.record, now, self._explanation)
        cors = self._incoming.cors
        return fields + cors if cors else fields

    def _limits(self) -> bytes:
        return b"" if self.quota is None else self.quota.fields()

    def _of_now(self, passed: Passed, now: float) -> bytes:
        """What an answer's head tells as of now, or to this client."""
        services = self._services
        more = b"" if passed.dated else services.date_header.field(now)
        pause = retry_pause(passed, services.clock.wall())
        if pause is not None:
            more += b"Retry-After: %d\r\n" % ceil(pause)
        if self.lease is not None and self.lease.choice.view.spec.forward_authorization:
            more += passed.challenge
        return more

    def _total_time(self) -> bytes:
        total = self._services.clock.now() - self.record.started
        return b"X-Olla-Response-Time: %.3fs\r\n" % total

    # --- what happened ----------------------------------------------------------------------

    def _attempt_over(self, failure: Failure | None) -> None:
        """A try has ended, however: the lease goes back, and everybody is told."""
        lease, trace, attempt = self.lease, self._trace, self.attempt
        self.lease = self.attempt = None
        if lease is not None and trace is not None:
            relay = attempt.relay if attempt is not None else None
            finish_attempt(self._upstreams, self._target, self.record, lease, trace, relay, failure)


def _left() -> Failure:
    return Failure(
        _CLIENT_GONE,
        "the client closed its side of the connection before an endpoint's answer was complete; "
        "keep it open until then",
    )


def record_choice(record: RequestRecord, choice: Choice, asked_for: str | None) -> None:
    """Where it goes, and why. `asked_for` is the model as the client spelled it."""
    view = choice.twin.view
    record.endpoint = choice.twin.name
    record.endpoint_type = choice.twin.kind or view.spec.type
    record.reason = choice.reason._value_  # the public way runs Python code
    match choice:
        case ChooseInstance():
            record.decision = "routed"
            record.model = view.models[choice.model].name
        case ChooseEndpoint():
            record.decision = "routed"
            record.model = asked_for
        case ChooseFallback():
            record.decision = "fallback"
            record.model = asked_for
        case never:
            assert_never(never)

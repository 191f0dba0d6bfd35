"""The life of one request, with one call per step.

Parse, choose an endpoint, attempt, relay, and finally record. Other modules implement the steps.
This module knows only their order, and that a request may be retried on another endpoint until the
first byte has gone to the client.

It is a state machine in callbacks, because a task with its futures would cost more than all the
calls it makes. It waits for one of: its turn in the queue, an attempt, a refresh of the model
lists.
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
from olla.proxy.exchange.attempt import Attempt, OutgoingRequest, load_patience
from olla.proxy.exchange.attempt_result import (
    finish_attempt,
    relayed_error,
    retry_after_seconds,
    upstream_error,
)
from olla.proxy.exchange.context import RequestConfig, Services, Upstreams
from olla.proxy.exchange.failover import is_final_error, retry_features
from olla.proxy.exchange.message_building import ReceivedBody, build_request, build_response
from olla.proxy.exchange.request_parsing import LONG, Scanned, parse_request, scan
from olla.proxy.exchange.sse_keepalive import SseKeepalive, keepalive_for
from olla.proxy.exchange.translation import AnswerTranslator, ErrorTranslator, Translation
from olla.proxy.http.error_response import error_answer, json_head
from olla.proxy.http.message_fields import Passed
from olla.proxy.http.request import IncomingRequest
from olla.proxy.http.response_head import ResponseHead
from olla.proxy.upstream.pool import UpstreamConnection
from olla.proxy.upstream.relay import Downstream, Relay, RelayOptions
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
"""Seconds. Limits how often requests for unknown models cause a refresh of the model lists."""
# Looking up an Enum member on its class takes 0.1 µs each time.
_MANAGE: Final = Right.MANAGE
_CLIENT_GONE: Final = Kind.CLIENT_GONE
_STREAMED: Final = BodyUse.STREAMED
_GONE: Final = Failure(Kind.CLIENT_GONE, "the client disconnected")


class ExchangeOwner(Protocol):
    """The server or subrequest that began an exchange."""

    def over(self, exchange: "Exchange") -> None:
        """Called once at the end: the response is written and the record complete."""
        ...

    def crashed(self, record: RequestRecord, error: Exception) -> None:
        """Called after an unexpected exception; the exchange sends the client an error."""
        ...


class ClientListener(Protocol):
    """A receiver of events of the client's connection."""

    def abandon(self, failure: Failure) -> None:
        """Called when the client has disconnected; `failure` has the details."""
        ...

    def half_closed(self) -> None:
        """Called when the client has closed its side of the connection. It may have closed both
        sides, which cannot be distinguished; the router can still write its own responses."""
        ...


class ClientConnection(Protocol):
    """A client's connection as a source of events."""

    def carries(self, exchange: ClientListener) -> None:
        """Register the listener for the exchange that begins."""
        ...


class Exchange:
    """One client request with its response."""

    __slots__ = (
        *("_body", "_body_read", "_charge", "_config", "_edits", "_explanation", "_failure"),
        *("_features", "_half_closed", "_owner", "_incoming", "_keepalive", "_refreshed"),
        *("_requested_model", "_retry_after", "_scanned", "_services", "_takes_slot"),
        *("_target", "_ticket", "_trace", "_translated", "_translation", "_upstreams"),
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
        owner: ExchangeOwner,
    ) -> None:
        self._services = services
        self._upstreams = upstreams
        self._config = config
        self._incoming = incoming
        self.downstream = downstream
        self._target = target
        self.record = record
        self._owner = owner
        self._body = b""
        self._edits: tuple[Edit, ...] = ()
        self._scanned: Scanned = None
        self._translation: Translation | None = None
        """Set if an endpoint was chosen that does not speak the client's dialect."""
        self._charge: BodyCharge | None = None
        self._body_read = not incoming.has_body
        self._requested_model: str | None = None
        self._takes_slot = False
        self._features: Features | None = None
        self.attempt: Attempt | None = None
        self._trace: AttemptRecord | None = None
        self.lease: Lease | None = None
        self._ticket: Ticket | None = None
        self.task: asyncio.Task[None] | None = None
        self._failure: Failure | None = None
        self._refreshed = False
        self._retry_after: float | None = None
        self._explanation: str | None = None
        self._keepalive: SseKeepalive | None = None
        self._half_closed = False
        """The client may have disconnected, so no endpoint may work for it."""
        self._translated = False
        """The current attempt is at an endpoint that does not speak the client's dialect."""
        self.finished = False
        self.quota: Quota | None = None
        """The caller's quota, once it is authorized."""
        record.dialect = target.dialect.name
        record.operation = target.word
        record.strategy = config.strategy

    def enter(self, quota: Quota) -> None:
        """Called when the caller is authenticated and authorized."""
        self.task = None
        self.quota = quota
        quota.annotate(self.record)

    def hold(self, charge: BodyCharge) -> None:
        """Take over the body's memory charge, which is released when the body is dropped."""
        self._charge = charge

    def begin(self, body: bytes) -> None:
        """Called once the body has been read (empty if it is streamed)."""
        assert self.quota is not None
        try:
            if self._target.body is not _STREAMED:
                self._body_read = True
                self.record.bytes_in = len(body)
            if self.finished:
                self._drop_body()  # stopped while the body was arriving
                return
            self._body = body
            if len(body) > LONG:
                self.task = spawn(self._scan(self.quota), self.crashed)
            else:
                self._parse(self.quota)
        except Exception as error:
            self.crashed(error)

    async def _scan(self, quota: Quota) -> None:
        """Scan a long body in time slices, then continue."""
        try:
            steps = scan(self._target, self._incoming, self._body)
            self._scanned = await self._services.time_slices.run(steps)
        except Failed as failed:
            self._failure = failed.failure
        self.task = None
        self._parse(quota)

    def _parse(self, quota: Quota) -> None:
        if self._failure is None:
            try:
                self._parse_request(quota)
            except Failed as failed:
                self._failure = failed.failure
        quota.charge(self._features, self._quota_charged)  # rejected requests are charged as well

    def _parse_request(self, quota: Quota) -> None:
        config, record = self._config, self.record
        self._features, self._edits, self._takes_slot, self._explanation = parse_request(
            config,
            self._upstreams,
            self._target,
            self._incoming,
            record,
            self._body,
            quota.caller,
            self._scanned,
        )
        self._requested_model = record.model
        if config.wait_keepalive and record.streaming:
            cors = self._incoming.cors
            self._keepalive = keepalive_for(
                self._services, config.wait_keepalive, self._target, self.downstream, record, cors
            )

    def _quota_charged(self, refused: Failure | None) -> None:
        """Continue after the quota was charged, or reject the request."""
        failure = refused or self._failure
        if failure is None:
            self._continue(None)
        elif not self.finished:
            self.refuse(failure)

    def stop(self, failure: Failure) -> None:
        """Stop the exchange and send the client an error."""
        attempt = self.attempt
        if attempt is not None and attempt.relay is not None:
            # Handled like an endpoint that disconnects in the middle of its response.
            attempt.relay.stop(failure)
        else:
            self._release_all(failure)
            self.refuse(failure)

    def abandon(self, failure: Failure = _GONE) -> None:
        """Stop all work for a client that has disconnected."""
        if self.finished:
            return
        self._release_all(failure)
        self.record.failure = failure
        self.record.status = self.record.status or failure.status
        self._finish()

    def half_closed(self) -> None:
        """Stop the work of endpoints for a client that has closed its side of the connection.

        Most such clients have disconnected. Responses that need no endpoint are still sent.
        """
        self._half_closed = True
        if not self.finished and (self._ticket is not None or self.lease is not None):
            self.stop(_half_closed_failure())

    def refuse(self, failure: Failure) -> None:
        """Send an error in the dialect of the path."""
        record, downstream = self.record, self.downstream
        record.failure = failure
        record.status = failure.status
        if not self._body_read:
            downstream.persistent = False
        keepalive = self._keepalive
        if keepalive is not None and keepalive.begun:
            record.status = 200
            record.bytes_out = keepalive.fail(failure)
            self._finish()
            return
        now = self._services.clock.now()
        answer = error_answer(
            failure,
            self._target.dialect,
            self._services.date_header.field(now) + self._olla_fields(now) + self._limit_fields(),
            keep_alive=downstream.persistent,
            minor=downstream.minor,
            bodiless=self._incoming.method == "HEAD",
        )
        record.bytes_out = len(answer)
        downstream.write(answer)
        self._finish()

    def crashed(self, error: Exception) -> None:
        """Send an error after an unexpected exception, and release everything."""
        self._owner.crashed(self.record, error)
        if self.finished:
            return
        failure = Failure(Kind.INTERNAL, "the router failed at this request; its log has more")
        self._release_all(failure)
        if self.record.first_byte is None:
            self.refuse(failure)
            return
        self.record.failure = failure  # in the middle of a response: it is cut off
        self.downstream.persistent = False
        self._finish()

    def _release_all(self, failure: Failure) -> None:
        """Release everything the exchange holds or waits for."""
        if self.task is not None:
            self.task.cancel()
            self.task = None
        if self._ticket is not None:
            self._upstreams.admission.leave(self._ticket)
            self._ticket = None
        if self.attempt is not None:
            self.attempt.abort()
            self._finish_attempt(failure)

    def _finish(self) -> None:
        if self._keepalive is not None:
            self._keepalive.stop()
        self._drop_body()
        if not self.finished:
            self.finished = True
            if self.quota is not None:
                self.quota.settle(self.record)
            self._owner.over(self)

    def _drop_body(self) -> None:
        charge, self._charge = self._charge, None
        if charge is not None:
            charge.release()
        self._body = b""
        self._scanned = None
        if self._translation is not None:
            self._translation.drop()

    # --- admission --------------------------------------------------------------------------

    def _enter(self) -> None:
        """Request a lease or join the queue."""
        assert self._features is not None
        entered = self._upstreams.admission.enter(
            self._features,
            self._requested_model or "",
            self._granted,
            _STEADY if self._target.right is _MANAGE else None,
            self._takes_slot,
            self.record.started,
        )
        match entered:
            case Lease() | Refuse():
                self._admitted(entered)
            case Ticket():
                self._ticket = entered
                self.record.predicted = self.record.predicted or entered.predicted
                if self._half_closed:
                    self.stop(_half_closed_failure())
            case never:
                assert_never(never)

    def _granted(self, granted: Lease | Refuse) -> None:
        """Handle the end of the wait in the queue, even if the client has just disconnected."""
        self._ticket = None
        if not self.finished:
            self._continue(granted)
            return
        match granted:
            case Lease():
                self._upstreams.admission.release(granted, self._services.clock.now())
            case Refuse():
                pass
            case never:
                assert_never(never)

    def _continue(self, granted: Lease | Refuse | None, failure: Failure | None = None) -> None:
        """Continue from a callback and handle exceptions.

        `granted` is None to request a lease, after an attempt that ended with `failure` if given.
        """
        try:
            if failure is not None:
                self._finish_attempt(failure)
            if granted is None:
                self._enter()
            else:
                self._admitted(granted)
        except Failed as failed:
            self.refuse(failed.failure)
        except Exception as error:
            self.crashed(error)

    def _admitted(self, granted: Lease | Refuse) -> None:
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
            self.refuse(_half_closed_failure())
            return
        if lease.waited > 0 and lease.choice.reason in _WAITED:
            record.queue_seconds = lease.waited
        if record.predicted is None:
            record.predicted = lease.predicted
        self._features = lease.features
        self._start_attempt(lease)

    def _rejected(self, refusal: Refuse) -> None:
        if self._failure is not None:
            self.refuse(self._failure)  # the failure of the last attempt
            return
        if refusal.reason is Reason.MODEL_NOT_FOUND and not self._refreshed:
            # The model may have been pulled a moment ago.
            self._refreshed = True
            self.task = spawn(self._refresh_lists(), self.crashed)
            return
        record = self.record
        record.decision, record.reason = "rejected", refusal.reason.value
        self.refuse(refusal.failure)

    async def _refresh_lists(self) -> None:
        fleet, timeout = self._upstreams.fleet, self._config.refresh_timeout
        await fleet.refresh("models", _LISTS_AGE_MAX, timeout)
        self.task = None
        self._continue(None)

    # --- attempts ---------------------------------------------------------------------------

    def _start_attempt(self, lease: Lease) -> None:
        """Start an attempt at the leased endpoint."""
        config = self._config
        record, choice = self.record, lease.choice
        self.lease = lease
        record_choice(record, choice, self._requested_model)
        self._trace = AttemptRecord(choice.twin.name, record.reason, lease.granted_at)
        record.attempts.append(self._trace)
        try:
            if self._must_translate(choice):
                self._start_translated(lease)
                return
            request = build_request(
                self._incoming,
                self._target,
                ReceivedBody(self._body, self._edits, self._scanned),
                self._requested_model,
                choice,
                record.id,
                config.via,
            )
        except Failed as failed:
            self._finish_attempt(failed.failure)
            raise
        self._start(lease, request)

    def _must_translate(self, choice: Choice) -> bool:
        """Whether the chosen endpoint does not speak the client's dialect."""
        target = self._target
        twin = choice.twin
        if not target.also or target.dialect.name in twin.dialects:
            self._translated = False
            return False
        self._translated = True
        return True

    def _start_translated(self, lease: Lease) -> None:
        """Translate the request for the leased endpoint, and start an attempt.

        Raises:
            Failed: it cannot be translated.
        """
        record, view = self.record, lease.choice.view
        translation = self._translation
        if translation is None:
            translation = self._translation = Translation(
                self._target, self._body, record.id, record.started_wall, record.started
            )
        if self._features is not None and self._features.only_loads:
            self._answer_load(translation)
            return
        model = view.models[lease.model].name if lease.model is not None else record.model or ""
        request = translation.request(self._incoming, view, model, record.id, self._config.via)
        record.translated = translation.dropped
        self._start(lease, request)

    def _answer_load(self, translation: Translation) -> None:
        """Answer a request that only loads a model: servers of other kinds have it loaded."""
        record, downstream = self.record, self.downstream
        body = translation.loaded()
        record.translated, record.status = (), 200
        record.bytes_out = len(body)
        now = self._services.clock.now()
        fields = (
            self._services.date_header.field(now) + self._olla_fields(now) + self._limit_fields()
        )
        head = json_head(
            len(body), fields, keep_alive=downstream.persistent, minor=downstream.minor
        )
        self._finish_attempt(None)
        downstream.write(head + body)
        self._finish()

    def _start(self, lease: Lease, request: OutgoingRequest) -> None:
        upstreams, config, choice = self._upstreams, self._config, lease.choice
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
        """See `Owner.relay`."""
        downstream, keepalive = self.downstream, self._keepalive
        begun = keepalive is not None and keepalive.begun
        translator = self._translator(head)
        return Relay(
            connection,
            downstream,
            self._target,
            head if translator is None else translator.head,
            self._begin_response,
            RelayOptions(
                endpoint=self.record.endpoint or "",
                trailer=self._total_time if downstream.wants_trailers and not begun else None,
                begun=begun,
                record_content=self.record.content is not None,
                translator=translator,
            ),
        )

    def _translator(self, head: ResponseHead) -> AnswerTranslator | ErrorTranslator | None:
        """The translator of a response; None if the endpoint speaks the client's dialect."""
        translation = self._translation
        if translation is None or not self._translated:
            return None
        if head.status == 200:
            return translation.answer(head, self._services.clock.now)
        return ErrorTranslator(self._target.dialect, self.record.endpoint or "", head)

    def _begin_response(self, head: ResponseHead) -> bytes:
        """Build the head for the client. From here on the request cannot be retried, because the
        first byte of the response goes to the client."""
        record, services = self.record, self._services
        now = services.clock.now()
        assert self._trace is not None
        self._drop_body()
        record.status = self._trace.status = head.status
        record.first_byte = self._trace.first_byte = now
        if head.status >= 400:
            self._retry_after = retry_after_seconds(head.passed, services.clock.wall())
        elif self.lease is not None:
            self._upstreams.admission.began(self.lease, now)
        begun = self._keepalive is not None and self._keepalive.stop()
        fields, limits = self._olla_fields(now), self._limit_fields()
        if not head.passed.plain:
            fields = self._variable_fields(head.passed, now) + fields
        response = build_response(
            head,
            self.downstream,
            fields + limits,
            body_read=self._body_read,
            limited=bool(limits),
        )
        return b"" if begun else response

    def relayed(self) -> None:
        """See `Owner.relayed`."""
        attempt, record = self.attempt, self.record
        assert attempt is not None
        assert attempt.relay is not None
        failure = attempt.relay.failure
        if failure is None and record.status >= 400:
            failure = relayed_error(record.endpoint or "", record.status, self._retry_after)
        try:
            self._finish_attempt(failure)
        except Exception as error:
            self.crashed(error)
        else:
            self._finish()

    def accepts(self, head: ResponseHead) -> bool:
        """Retry an endpoint's error on another endpoint if possible, else relay it."""
        assert self.attempt is not None
        assert self.lease is not None
        assert self._trace is not None
        view = self.lease.choice.view
        self._trace.status = head.status
        retry_after = retry_after_seconds(head.passed, self._services.clock.wall())
        failure = upstream_error(view.name, head.status, retry_after)
        if not is_final_error(self._target, view, head.status):
            if head.status == 404:
                self._upstreams.fleet.probe_now(view.name)
            if self.prepare_retry(failure):
                self.attempt.abort()
                self.retry(failure)
                return False
        if self._keepalive is None or not self._keepalive.begun:
            return True
        # The keepalive has begun a stream, so the error is reported within it.
        self.attempt.abort()
        self._finish_attempt(failure)
        self.refuse(failure)
        return False

    def failed(self, failure: Failure) -> None:
        """Retry on another endpoint if possible, else send the failure to the client."""
        try:
            if self.prepare_retry(failure):
                self.retry(failure)
            else:
                self._finish_attempt(failure)
                self.refuse(failure)
        except Exception as error:
            self.crashed(error)

    def prepare_retry(self, failure: Failure) -> bool:
        """Prepare a retry without the failed endpoint. Returns False if none is possible."""
        assert self._features is not None
        assert self._trace is not None
        at = self._trace.endpoint
        features = retry_features(self._upstreams, self._target, self._features, at, failure)
        if features is None:
            return False
        self._features = features
        return True

    def retry(self, failure: Failure) -> None:
        """End the failed attempt and retry on another endpoint."""
        self._failure = failure
        self._continue(None, failure=failure)

    def _olla_fields(self, now: float) -> bytes:
        fields = self._services.response_headers.fields(self.record, now, self._explanation)
        cors = self._incoming.cors
        return fields + cors if cors else fields

    def _limit_fields(self) -> bytes:
        return b"" if self.quota is None else self.quota.fields()

    def _variable_fields(self, passed: Passed, now: float) -> bytes:
        """Return the header lines that depend on the time or on the client."""
        services = self._services
        more = b"" if passed.dated else services.date_header.field(now)
        retry_after = retry_after_seconds(passed, services.clock.wall())
        if retry_after is not None:
            more += b"Retry-After: %d\r\n" % ceil(retry_after)
        if self.lease is not None and self.lease.choice.view.spec.forward_authorization:
            more += passed.challenge
        return more

    def _total_time(self) -> bytes:
        total = self._services.clock.now() - self.record.started
        return b"X-Olla-Response-Time: %.3fs\r\n" % total

    # --- results ----------------------------------------------------------------------------

    def _finish_attempt(self, failure: Failure | None) -> None:
        """Finish the current attempt with a failure or, if None, with success."""
        lease, trace, attempt = self.lease, self._trace, self.attempt
        self.lease = self.attempt = None
        if lease is not None and trace is not None:
            relay = attempt.relay if attempt is not None else None
            finish_attempt(self._upstreams, self._target, self.record, lease, trace, relay, failure)


def _half_closed_failure() -> Failure:
    return Failure(
        _CLIENT_GONE,
        "the client closed its side of the connection before an endpoint's response was complete; "
        "keep it open until then",
    )


def record_choice(record: RequestRecord, choice: Choice, requested_model: str | None) -> None:
    """Record the chosen endpoint and the reason.

    `requested_model` is the model as the client spelled it.
    """
    view = choice.twin.view
    record.endpoint = choice.twin.name
    record.endpoint_type = choice.twin.kind or view.spec.type
    record.reason = choice.reason._value_  # `value` is slower: it runs Python code
    match choice:
        case ChooseInstance():
            record.decision = "routed"
            record.model = view.models[choice.model].name
        case ChooseEndpoint():
            record.decision = "routed"
            record.model = requested_model
        case ChooseFallback():
            record.decision = "fallback"
            record.model = requested_model
        case never:
            assert_never(never)

"""The life of one request: a call per station, in the request's order.

Read, understand, allow, choose, try, relay, and at the end one record of what happened. Every
station's own question is answered elsewhere; this file only knows their order, and that another
endpoint may be tried until the first byte has gone to the client.
"""

import asyncio
import re

import msgspec

from olla.access.rights import Caller, refuse_management, refuse_pinning
from olla.admission.dispatcher import Lease
from olla.dialects.dialect import Category, Operation, Peek
from olla.dialects.multipart import peek_multipart, replace_multipart_model
from olla.dialects.paths import BodyUse, Target
from olla.dialects.rewrite import replace_model
from olla.failures import Failed, Failure, Kind, Phase
from olla.fleet.names import canonical
from olla.proxy.attempt import Attempt, Outcome, OutgoingRequest
from olla.proxy.error_response import error_answer
from olla.proxy.head import ResponseHead
from olla.proxy.headers import (
    header_value,
    request_head,
    response_head,
    seconds,
)
from olla.proxy.incoming import Incoming, read_body
from olla.proxy.relay import Downstream, Relay
from olla.proxy.stations import Stations
from olla.proxy.upstream import UpstreamConnection
from olla.record import AttemptRecord, RequestRecord
from olla.routing.candidates import Features
from olla.routing.decision import Choose, Reason, Refuse
from olla.routing.policies.steady import Steady

__all__ = ["Exchange", "request_id"]

_CHANGES_MODELS = frozenset({Operation.PULL, Operation.CREATE, Operation.COPY, Operation.DELETE})
_STEADY = Steady()
_LISTS_AGE_MAX = 1.0
"""Seconds. Bounds how often requests for unknown models make olla ask the endpoints."""
_SANE_ID = re.compile(r"[!-~]{1,128}")


def request_id(incoming: Incoming, stations: Stations) -> str:
    """The client's own id where it sent a sane one (printable ASCII, up to 128), else a new one."""
    own = incoming.header("X-Olla-Request-ID")
    if own is not None and _SANE_ID.fullmatch(own):
        return own
    return next(stations.ids)


class Exchange:
    """One client request with its answer."""

    def __init__(
        self,
        stations: Stations,
        incoming: Incoming,
        downstream: Downstream,
        target: Target,
        record: RequestRecord,
    ) -> None:
        self._stations = stations
        self._incoming = incoming
        self._downstream = downstream
        self._target = target
        self._record = record
        self._body = b""
        self._body_read = not incoming.has_body
        self._attempt: Attempt | None = None
        self._task: asyncio.Task[object] | None = None
        self._stopped: Failure | None = None
        self._retry_after: float | None = None
        record.dialect = target.dialect.name
        record.operation = target.operation.value
        record.strategy = stations.dispatcher.options.strategy.value

    async def run(self) -> None:
        """Answer the request. The record is complete when this returns or raises."""
        self._task = asyncio.current_task()
        try:
            await self._through_the_stations()
        except Failed as failed:
            self._refuse(failed.failure)
        except asyncio.CancelledError:
            if self._stopped is None:
                self._record.failure = Failure(Kind.CLIENT_GONE, "the client went away")
                self._record.status = self._record.status or 499
                raise
            self._refuse(self._stopped)
        finally:
            self._task = None

    def stop(self, failure: Failure) -> None:
        """End it now, with an error the client can read."""
        relay = self._attempt.relay if self._attempt is not None else None
        if relay is not None and self._attempt is not None:
            self._attempt.abort()
            relay.fail(failure)
        elif self._task is not None:
            self._stopped = failure
            self._task.cancel()

    # --- the stations -----------------------------------------------------------------------

    async def _through_the_stations(self) -> None:
        target, record = self._target, self._record
        self._check_rights()
        peek = await self._understand()
        record.model = peek.model
        record.streaming = peek.stream
        features = self._features(peek)
        failure: Failure | None = None
        refreshed = False
        while True:
            granted = self._ask(features, peek)
            if isinstance(granted, Refuse):
                if failure is not None:
                    raise Failed(failure)
                if await self._worth_another_look(granted, refreshed):
                    refreshed = True
                    continue
                record.decision, record.reason = "rejected", granted.reason.value
                raise Failed(granted.failure)
            failure = await self._try(granted, peek, features)
            if failure is None:
                return
            changes = target.category is Category.MANAGE
            if not failure.facts.elsewhere or (
                changes and failure.facts.phase is not Phase.CONNECT
            ):
                raise Failed(failure)
            tried = (*features.tried, granted.choice.view.name)
            features = msgspec.structs.replace(features, tried=tried)

    def _check_rights(self) -> None:
        incoming, target = self._incoming, self._target
        pinned = incoming.header("X-Olla-Endpoint")
        if target.category is not Category.MANAGE and pinned is None:
            return
        caller = Caller(
            incoming.peer,
            forwarded=any(incoming.header(name) for name in ("X-Forwarded-For", "Forwarded")),
            origin=incoming.header("Origin"),
        )
        refusal = None
        if target.category is Category.MANAGE:
            refusal = refuse_management(caller, target.operation.value)
        if refusal is None and pinned is not None:
            refusal = refuse_pinning(caller)
        if refusal is not None:
            raise Failed(refusal)

    async def _understand(self) -> Peek:
        target, incoming = self._target, self._incoming
        if target.body is BodyUse.STREAMED:
            return Peek(model=None, stream=False)
        self._body = await read_body(incoming, self._stations.max_body)
        self._body_read = True
        self._record.bytes_in = len(self._body)
        if target.body is BodyUse.NONE:
            return Peek(model=None, stream=False)
        if target.body is BodyUse.MULTIPART:
            return peek_multipart(incoming.header("Content-Type") or "", self._body)
        return target.dialect.peek(target.operation, self._body)

    def _features(self, peek: Peek) -> Features:
        models: tuple[str, ...] = ()
        if peek.model is not None:
            name = canonical(peek.model)
            known = self._stations.aliases.get(name) or (name,)
            if self._target.needs_model or self._names_a_model(known):
                models = known
        return Features(
            models=models,
            dialect=self._target.dialect.name,
            profiles=self._target.profiles,
            pinned=self._incoming.header("X-Olla-Endpoint"),
            ticket=next(self._stations.tickets),
        )

    def _names_a_model(self, models: tuple[str, ...]) -> bool:
        """Whether a path that olla does not know is asked about a model that it knows."""
        if self._target.operation is not Operation.OTHER:
            return False
        by_model = self._stations.fleet.snapshot.by_model
        return any(model in by_model for model in models)

    def _ask(self, features: Features, peek: Peek) -> Lease | Refuse:
        stations, target = self._stations, self._target
        return stations.dispatcher.ask(
            features,
            stations.fleet.snapshot,
            peek.model or "",
            stations.clock.now(),
            policy=_STEADY if target.category is Category.MANAGE else None,
            counted=target.operation.occupies_slot,
        )

    async def _worth_another_look(self, refusal: Refuse, refreshed: bool) -> bool:
        """Whether the endpoints were asked again for a model that none of them listed.

        Somebody may have pulled it a moment ago; only then is "not found" the truth.
        """
        if refreshed or refusal.reason is not Reason.MODEL_NOT_FOUND:
            return False
        stations = self._stations
        await stations.fleet.refresh("models", _LISTS_AGE_MAX, stations.refresh_timeout)
        return True

    # --- one try ----------------------------------------------------------------------------

    async def _try(self, lease: Lease, peek: Peek, features: Features) -> Failure | None:
        """Try one endpoint. None when the answer has gone to the client, as far as it went."""
        stations, record, choice = self._stations, self._record, lease.choice
        name = choice.view.name
        self._note_choice(choice, peek)
        trace = AttemptRecord(name, choice.reason.value, stations.clock.now())
        record.attempts.append(trace)
        attempt = self._attempt = Attempt(
            stations.pool,
            choice.view.spec,
            self._outgoing(choice, peek),
            stations.timeouts,
            may_load=choice.reason in (Reason.COLD_LOAD, Reason.FALLBACK),
            make_relay=self._relay,
        )
        failure: Failure | None = None
        try:
            outcome = await attempt.run()
            if outcome is Outcome.HELD:
                failure = self._turned_away(attempt, name)
                stations.dispatcher.release(lease)
                if self._another_can(features, name, peek):
                    attempt.abort()
                    return failure
                outcome = await attempt.accept()
            if outcome is Outcome.FAILED:
                failure = attempt.failure
                return failure
            failure = failure or self._broken_relay(attempt, name)
            return None
        except Failed as failed:
            failure = failed.failure
            return failure
        except asyncio.CancelledError:
            failure = Failure(Kind.CLIENT_GONE, "the client went away")
            raise
        finally:
            if not lease.released:
                stations.dispatcher.release(lease)
            model = choice.model if lease.counted else None
            self._note_end(attempt, trace, failure, model)

    def _another_can(self, features: Features, name: str, peek: Peek) -> bool:
        if self._target.category is Category.MANAGE:
            return False
        tried = (*features.tried, name)
        granted = self._ask(msgspec.structs.replace(features, tried=tried), peek)
        if isinstance(granted, Refuse):
            return False
        self._stations.dispatcher.release(granted)
        return True

    def _outgoing(self, choice: Choose, peek: Peek) -> OutgoingRequest:
        incoming, target = self._incoming, self._target
        streamed = target.body is BodyUse.STREAMED and incoming.has_body
        body = self._body_for(choice, peek)
        length: int | None = len(body) if body or incoming.has_body else None
        if streamed:
            length = incoming.length
        chunked = streamed and length is None
        head = request_head(
            incoming.method,
            target.upstream_target,
            choice.view.spec,
            incoming.headers,
            request_id=self._record.id,
            peer=incoming.peer,
            length=length,
            chunked=chunked,
        )
        if streamed and incoming.expects_continue():
            incoming.send_continue()
        return OutgoingRequest(
            method=incoming.method,
            head=head,
            body=body,
            pieces=incoming.pieces if streamed else None,
            chunked=chunked,
            fresh_connection=target.category is Category.MANAGE,
        )

    def _body_for(self, choice: Choose, peek: Peek) -> bytes:
        """The body, with the model spelled as the endpoint spells it where that matters."""
        view, model = choice.view, choice.model
        if model is None or peek.model is None:
            return self._body
        own = view.models[model].name
        renamed = canonical(peek.model) != model
        strict = view.profile is not None and view.profile.name != "ollama" and own != peek.model
        if not renamed and not strict:
            return self._body
        if self._target.body is BodyUse.MULTIPART:
            form = self._incoming.header("Content-Type") or ""
            return replace_multipart_model(form, self._body, own)
        return replace_model(self._body, self._target.operation, own)

    def _relay(self, connection: UpstreamConnection, head: ResponseHead) -> Relay:
        """The answer is to be relayed: its head for the client, olla's fields added."""
        downstream, record, clock = self._downstream, self._record, self._stations.clock
        self._body = b""  # no other endpoint will be asked any more
        now = clock.now()
        record.status = head.status
        self._retry_after = _retry_after(head)
        record.first_byte = now
        record.attempts[-1].first_byte = now
        record.attempts[-1].status = head.status
        chunked = head.chunked and not head.bodiless and downstream.minor == 1
        delimited = chunked or head.bodiless or head.length is not None
        if not delimited or not self._body_read:
            downstream.keep_alive = False
        with_trailer = chunked and downstream.wants_trailers
        head_bytes = response_head(
            head,
            [*self._fields(), ("X-Olla-Response-Time", seconds(now - record.started))],
            keep_alive=downstream.keep_alive,
            minor=downstream.minor,
            chunked=chunked,
            trailer="X-Olla-Response-Time" if with_trailer else None,
        )
        return Relay(
            connection,
            downstream,
            self._target.dialect,
            self._target.operation,
            head,
            head_bytes,
            endpoint=record.endpoint or "",
            trailer=self._total_time if with_trailer else None,
        )

    def _total_time(self) -> bytes:
        total = self._stations.clock.now() - self._record.started
        return f"X-Olla-Response-Time: {seconds(total)}\r\n".encode()

    def _turned_away(self, attempt: Attempt, name: str) -> Failure:
        assert attempt.held is not None
        return _answered(name, attempt.held.status, _retry_after(attempt.held))

    def _broken_relay(self, attempt: Attempt, name: str) -> Failure | None:
        relay = attempt.relay
        if relay is None or relay.failure is not None:
            return relay.failure if relay is not None else None
        status = self._record.status
        if status >= 500 or status in (401, 403, 429):
            return _answered(name, status, self._retry_after)
        return None

    # --- what happened ----------------------------------------------------------------------

    def _note_choice(self, choice: Choose, peek: Peek) -> None:
        record, view = self._record, choice.view
        record.endpoint = view.name
        record.endpoint_type = view.profile.name if view.profile is not None else view.spec.type
        record.decision = "fallback" if choice.fallback else "routed"
        record.reason = choice.reason.value
        record.model = view.models[choice.model].name if choice.model else peek.model

    def _note_end(
        self,
        attempt: Attempt,
        trace: AttemptRecord,
        failure: Failure | None,
        model: str | None,
    ) -> None:
        stations, record, relay = self._stations, self._record, attempt.relay
        trace.ended = stations.clock.now()
        trace.failure = failure
        if attempt.held is not None:
            trace.status = attempt.held.status
        if relay is not None:
            record.bytes_out = relay.bytes_out
            record.failure = failure
            if relay.summary is not None:
                record.prompt_tokens = relay.summary.prompt_tokens
                record.output_tokens = relay.summary.output_tokens
                record.load_seconds = relay.summary.load_seconds
        if failure is None or failure.kind is not Kind.CLIENT_GONE:
            stations.fleet.observe(trace.endpoint, failure, model)
        if self._target.operation in _CHANGES_MODELS:
            stations.fleet.probe_now(trace.endpoint)

    def _fields(self) -> list[tuple[str, str]]:
        record = self._record
        fields = [("X-Olla-Request-ID", record.id)]
        if record.endpoint is not None:
            fields.append(("X-Olla-Endpoint", record.endpoint))
        if record.model is not None:
            fields.append(("X-Olla-Model", header_value(record.model)))
        if record.endpoint_type is not None:
            fields.append(("X-Olla-Backend-Type", record.endpoint_type))
        fields.append(("X-Olla-Routing-Strategy", record.strategy))
        fields.append(("X-Olla-Routing-Decision", record.decision or "rejected"))
        if record.reason:
            fields.append(("X-Olla-Routing-Reason", record.reason))
        if len(record.attempts) > 1:
            fields.append(("X-Olla-Attempts", str(len(record.attempts))))
        return fields

    def _refuse(self, failure: Failure) -> None:
        """Answer with an error in the dialect of the path."""
        record, downstream = self._record, self._downstream
        record.failure = failure
        record.status = failure.status
        if not self._body_read:
            downstream.keep_alive = False
        elapsed = self._stations.clock.now() - record.started
        answer = error_answer(
            failure,
            self._target.dialect,
            [*self._fields(), ("X-Olla-Response-Time", seconds(elapsed))],
            keep_alive=downstream.keep_alive,
            minor=downstream.minor,
            bodiless=self._incoming.method == "HEAD",
        )
        record.bytes_out = len(answer)
        downstream.write(answer)


def _retry_after(head: ResponseHead) -> float | None:
    """The seconds an endpoint asks to be left alone; None where it does not say in seconds."""
    value = head.get(b"retry-after") or b""
    return float(value) if value.isdigit() and len(value) < 10 else None


def _answered(endpoint: str, status: int, retry_after: float | None) -> Failure:
    """The endpoint has answered with an error of its own."""
    return Failure(
        Kind.UPSTREAM_STATUS,
        f"endpoint '{endpoint}' answered {status}",
        endpoint,
        retry_after=retry_after,
        endpoint_status=status,
    )

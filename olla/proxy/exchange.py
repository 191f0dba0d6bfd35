"""The life of one request: a call per station, in the request's order.

Read, understand, allow, choose, try, relay, and at the end one record of what happened. Every
station's own question is answered elsewhere; this file only knows their order, and that another
endpoint may be tried until the first byte has gone to the client.
"""

import asyncio
import re

import msgspec

from olla.access.rights import FORWARDING_HEADERS, Caller, refuse_management, refuse_pinning
from olla.admission.tickets import Answer, Lease
from olla.dialects.dialect import Category, Operation, Peek
from olla.dialects.multipart import peek_multipart
from olla.dialects.paths import BodyUse, Target
from olla.failures import Failed, Failure, Kind, Phase
from olla.proxy.answered import answered, retry_after
from olla.proxy.attempt import Attempt, Outcome
from olla.proxy.context_length import fit_context
from olla.proxy.describing import answer_of, explanation, features_of
from olla.proxy.error_response import error_answer
from olla.proxy.forming import form_request
from olla.proxy.head import ResponseHead
from olla.proxy.headers import header_value, response_head, seconds
from olla.proxy.incoming import Incoming, read_body
from olla.proxy.relay import Downstream, Relay
from olla.proxy.stations import Stations
from olla.proxy.upstream import UpstreamConnection
from olla.record import AttemptRecord, RequestRecord
from olla.routing.decision import Choose, Reason, Refuse
from olla.routing.features import Features
from olla.routing.policies.steady import Steady

__all__ = ["Exchange", "request_id"]

_CHANGES_MODELS = frozenset({Operation.PULL, Operation.CREATE, Operation.COPY, Operation.DELETE})
_STEADY = Steady()
_WAITED = frozenset({Reason.QUEUED, Reason.COLD_LOAD, Reason.MODEL_LOADING})
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
        self._lease: Lease | None = None
        self._explanation: str | None = None
        record.dialect = target.dialect.name
        record.operation = target.operation.value
        record.strategy = stations.admission.dispatcher.options.strategy.value

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
        self._check_loop()
        self._check_rights()
        peek = await self._understand()
        peek, self._body, record.rewritten = fit_context(self._stations.context, peek, self._body)
        record.model = peek.model
        record.streaming = peek.stream
        record.inference = target.operation.occupies_slot
        record.load_options = peek.load_options
        features = features_of(self._stations, target, self._incoming, peek)
        if self._incoming.header("X-Olla-Explain") is not None:
            self._explanation = self._explain(features)
        if self._stations.explained is not None:
            self._stations.explained(record.id, self._explain(features))
        failure: Failure | None = None
        refreshed = False
        while True:
            granted = await self._enter(features, peek)
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
            features = msgspec.structs.replace(granted.features, tried=tried)

    def _check_loop(self) -> None:
        """Refuse a request that this router has sent itself: it would multiply without end."""
        via, own = self._incoming.header("Via"), self._stations.via
        if own is not None and via is not None and own in via:
            message = (
                "this request has come through this router before: an endpoint in its "
                "configuration leads back to it; take that endpoint out"
            )
            raise Failed(Failure(Kind.LOOP, message))

    def _check_rights(self) -> None:
        incoming, target = self._incoming, self._target
        pinned = incoming.header("X-Olla-Endpoint")
        if target.category is not Category.MANAGE and pinned is None:
            return
        caller = Caller(
            incoming.peer,
            forwarded=any(incoming.header(name) for name in FORWARDING_HEADERS),
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
        encoding = incoming.header("Content-Encoding")
        if encoding is not None and encoding.strip().lower() != "identity":
            message = f"request bodies cannot be encoded ({encoding[:40]}); send it as it is"
            raise Failed(Failure(Kind.ENCODING_UNSUPPORTED, message))
        self._body = await read_body(incoming, self._stations.max_body)
        self._body_read = True
        self._record.bytes_in = len(self._body)
        if target.body is BodyUse.NONE:
            return Peek(model=None, stream=False)
        if target.body is BodyUse.MULTIPART:
            return peek_multipart(incoming.header("Content-Type") or "", self._body)
        return target.dialect.peek(target.operation, self._body)

    async def _enter(self, features: Features, peek: Peek) -> Lease | Refuse:
        """Wait for a lease."""
        target, record = self._target, self._record
        granted = await self._stations.admission.enter(
            features,
            peek.model or "",
            policy=_STEADY if target.category is Category.MANAGE else None,
            # Unloading takes no slot, and must not have the model loaded first.
            counted=target.operation.occupies_slot
            and not (peek.only_loads and peek.keep_alive == 0),
            asked_at=record.started,
        )
        if isinstance(granted, Lease):
            if granted.waited > 0 and granted.choice.reason in _WAITED:
                record.queue_seconds = granted.waited
            if record.predicted is None:
                record.predicted = granted.predicted
        return granted

    def _explain(self, features: Features) -> str:
        stations = self._stations
        return explanation(
            stations.admission.dispatcher.explained(
                features, stations.fleet.snapshot, stations.clock.now()
            )
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
        self._lease = lease
        attempt = self._attempt = Attempt(
            stations.pool,
            choice.view.spec,
            form_request(
                self._incoming,
                self._target,
                self._body,
                peek,
                choice,
                request_id=record.id,
                via=stations.via,
            ),
            stations.timeouts,
            may_load=choice.reason in (Reason.COLD_LOAD, Reason.FALLBACK),
            make_relay=self._relay,
        )
        failure: Failure | None = None
        try:
            outcome = await attempt.run()
            if outcome is Outcome.HELD:
                failure = self._turned_away(attempt, name)
                stations.admission.release(lease)
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
                stations.admission.release(lease, self._learnt(attempt, lease, failure))
            model = choice.model if lease.counted else None
            self._note_end(attempt, trace, failure, model)

    def _another_can(self, features: Features, name: str, peek: Peek) -> bool:
        if self._target.category is Category.MANAGE:
            return False
        stations = self._stations
        return stations.admission.dispatcher.could_serve(
            msgspec.structs.replace(features, tried=(*features.tried, name)),
            stations.fleet.snapshot,
            peek.model or "",
            stations.clock.now(),
        )

    def _learnt(self, attempt: Attempt, lease: Lease, failure: Failure | None) -> Answer | None:
        """What a complete answer tells the estimates; None for any other."""
        relay = attempt.relay
        if failure is not None or relay is None or relay.summary is None:
            return None
        if self._record.status != 200:
            return None
        return answer_of(lease.features, relay.summary, streamed=self._record.streaming)

    def _relay(self, connection: UpstreamConnection, head: ResponseHead) -> Relay:
        """The answer is to be relayed: its head for the client, olla's fields added."""
        downstream, record, clock = self._downstream, self._record, self._stations.clock
        self._body = b""  # no other endpoint will be asked any more
        now = clock.now()
        record.status = head.status
        self._retry_after = retry_after(head)
        record.first_byte = now
        record.attempts[-1].first_byte = now
        record.attempts[-1].status = head.status
        if self._lease is not None and head.status < 400:
            self._stations.admission.began(self._lease)
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
        return answered(name, attempt.held.status, retry_after(attempt.held))

    def _broken_relay(self, attempt: Attempt, name: str) -> Failure | None:
        relay = attempt.relay
        if relay is None or relay.failure is not None:
            return relay.failure if relay is not None else None
        status = self._record.status
        if status >= 500 or status in (401, 403, 429):
            return answered(name, status, self._retry_after)
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
        if record.queue_seconds is not None:
            fields.append(("X-Olla-Queue-Time", seconds(record.queue_seconds)))
        if self._explanation is not None:
            fields.append(("X-Olla-Explanation", self._explained(record)))
        return fields

    def _explained(self, record: RequestRecord) -> str:
        """The candidates, and what was expected against what came."""
        parts = [self._explanation or ""]
        if record.predicted is not None:
            parts.append(f"predicted={seconds(record.predicted)}")
        if record.first_byte is not None:
            parts.append(f"observed={seconds(record.first_byte - record.started)}")
        return "; ".join(parts)

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

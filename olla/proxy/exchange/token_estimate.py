"""Estimate token counts that the endpoint did not report, so that clients cannot bypass a quota by
disconnecting early or disabling the counts."""

from typing import Final

from olla.access.policy import BYTES_A_TOKEN
from olla.admission.queue_types import Lease
from olla.failures import LEFT, Failure
from olla.proxy.upstream.relay import Relay
from olla.record import RequestRecord

__all__ = ["estimate_tokens"]

_TEXTLESS_RECORDS: Final = {b"data:": 2, b"event": 5}
"""Number of records in a stream that carry no text, by the start of its records. OpenAI: finish
reason and `[DONE]`; Anthropic: start and stop of message and block, and the stop reason; else one
(Ollama's last record)."""


def estimate_tokens(
    record: RequestRecord, lease: Lease, relay: Relay | None, failure: Failure | None, now: float
) -> None:
    """Estimate the tokens of a response without counts, and mark the estimate in the record.

    A stream is estimated by its records, one token each, and an unstreamed response by its bytes;
    both are capped by the request's token limit. If the client disconnected before the first byte,
    the endpoint's work until then is estimated by its learned rates. Failures of endpoints cost
    nothing.
    """
    features = lease.features
    if record.prompt_tokens is not None:
        prompt = float(record.prompt_tokens)
    else:
        prompt = features.prompt_tokens or features.prompt_bytes / BYTES_A_TOKEN
    if relay is not None:
        if record.status != 200:
            return
        output = 0.0 if features.embedding else _forwarded_tokens(relay)
    elif failure is not None and failure.kind in LEFT:
        instance = lease.instance
        if instance is None:
            return
        worked = now - lease.granted_at - prompt * instance.rates.prefill
        decode = instance.rates.decode
        idle = features.embedding or decode <= 0
        output = 0.0 if idle else max(worked / decode, 0.0)
    else:
        return
    record.prompt_tokens = round(prompt)
    record.output_tokens = round(min(output, features.output_max))
    record.estimated = True


def _forwarded_tokens(relay: Relay) -> float:
    """Estimate the tokens forwarded to the client.

    For a stream, the number of records: its lines divided by the lines per record, measured on the
    last records. Without a readable stream, the bytes are used.
    """
    if not relay.streams or not relay.readable:
        return relay.size / BYTES_A_TOKEN
    last = relay.last_records()
    begin = last[:5]
    if begin in _TEXTLESS_RECORDS:
        lines = last.count(b"\n")
        records = relay.lines * last.count(b"data:") / lines if lines else 0.0
    else:
        records = float(relay.lines)
    ended = relay.failure is None  # an incomplete stream lacks some of these records
    return max(records - (_TEXTLESS_RECORDS.get(begin, 1) if ended else 0), 0.0)

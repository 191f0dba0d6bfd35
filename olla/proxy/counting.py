"""Tokens that nobody reported: estimated, so that leaving early or asking for no counts is no way
around a quota."""

from typing import Final

from olla.access.policy import BYTES_A_TOKEN
from olla.admission.tickets import Lease
from olla.failures import Failure, Kind
from olla.proxy.relay import Relay
from olla.record import RequestRecord

__all__ = ["estimate_tokens"]

_ENDING: Final = {b"data:": 2}
"""Records that end a stream, by how its records begin: a reason and `[DONE]`; else one."""
_CLIENT_GONE: Final = Kind.CLIENT_GONE


def estimate_tokens(
    record: RequestRecord, lease: Lease, relay: Relay | None, failure: Failure | None, now: float
) -> None:
    """Estimate what an answer without counts has taken, and mark it in the record.

    Of a stream the records that went to the client are counted, one token each; of an answer that
    came whole, its bytes. Where the client left before a byte came, the endpoint has worked for it
    meanwhile: as fast as it is known to. What an endpoint failed at costs nobody anything.
    """
    features = lease.features
    if record.prompt_tokens is not None:
        prompt = float(record.prompt_tokens)
    else:
        prompt = features.prompt_tokens or features.prompt_bytes / BYTES_A_TOKEN
    if relay is not None:
        if record.status != 200:
            return
        output = 0.0 if features.embedding else _passed_on(relay)
    elif failure is not None and failure.kind is _CLIENT_GONE:
        line = lease.choice.line
        if line is None:
            return
        worked = now - lease.granted_at - prompt * line.rates.prefill
        decode = line.rates.decode
        idle = features.embedding or decode <= 0
        output = 0.0 if idle else max(worked / decode, 0.0)
    else:
        return
    record.prompt_tokens = round(prompt)
    record.output_tokens = round(output)
    record.estimated = True


def _passed_on(relay: Relay) -> float:
    """How many tokens have gone to the client, by the size of the last records."""
    if not relay.streams:
        return relay.bytes_out / BYTES_A_TOKEN
    last = relay.last_records()
    lines = sum(1 for line in last.splitlines() if line.strip())
    records = relay.bytes_out * lines / len(last) if last else 0.0
    ended = relay.failure is None  # then what ends a stream is not of the text
    return max(records - (_ENDING.get(last[:5], 1) if ended else 0), 0.0)

"""Tokens that nobody reported: estimated, so that leaving early or asking for no counts is no way
around a quota."""

from typing import Final

from olla.access.policy import BYTES_A_TOKEN
from olla.admission.queue_types import Lease
from olla.failures import LEFT, Failure
from olla.proxy.upstream.relay import Relay
from olla.record import RequestRecord

__all__ = ["estimate_tokens"]

_FRAME: Final = {b"data:": 2, b"event": 5}
"""Records of a stream that carry no text, by how its records begin: OpenAI's finish reason and
`[DONE]`; Anthropic's start and stop of message and block, and its reason; else one (Ollama's
last)."""


def estimate_tokens(
    record: RequestRecord, lease: Lease, relay: Relay | None, failure: Failure | None, now: float
) -> None:
    """Estimate the tokens of an answer without counts, and mark it in the record.

    A stream counts by its records, one token each; an answer that came whole counts by its bytes;
    neither counts more than the request allows. If the client left before the first byte, the
    endpoint has worked meanwhile, at the speed learned of it. An endpoint's failure costs nothing.
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


def _passed_on(relay: Relay) -> float:
    """How many tokens have gone to the client: the records of a stream, by its lines and by how
    many of them the last records take. Of a stream that could not be read, the bytes count."""
    if not relay.streams or not relay.read:
        return relay.size / BYTES_A_TOKEN
    last = relay.last_records()
    begin = last[:5]
    if begin in _FRAME:
        lines = last.count(b"\n")
        records = relay.lines * last.count(b"data:") / lines if lines else 0.0
    else:
        records = float(relay.lines)
    ended = relay.failure is None  # a stream that broke off had only some of its frame
    return max(records - (_FRAME.get(begin, 1) if ended else 0), 0.0)

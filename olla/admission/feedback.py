"""Learn from a response: its endpoint's rates and its model's habits."""

from olla.admission.queue_types import AnswerStats
from olla.fleet.instance import InFlightRequest, ModelInstance
from olla.routing.features import Features

__all__ = ["learn"]

_WAIT_MIN = 0.05
_WAIT_SHARE = 0.3
"""A request had to wait for a slot if its first byte is late by this many seconds, and by this
share."""
_TOKENS_MIN = 16
"""With fewer prompt tokens, the time measures a request's overhead instead of the rate."""
_LOAD_MIN = 0.2
"""Seconds of loading below which the model was already loaded."""


def learn(flight: InFlightRequest, features: Features, answer: AnswerStats, now: float) -> None:
    """Learn rates, habits and slots from a complete response."""
    instance = flight.instance
    if instance is None:
        return
    instance.habits.answered(answer.prompt_bytes, answer.prompt_tokens, answer.output_tokens)
    instance.rates.learned(_prompt(flight, features, answer), _output(flight, answer, now))
    waited = _waited(flight, instance, answer)
    if waited is not None:
        instance.slots.saw(flight.crowd, now, waited=waited)


def _prompt(
    flight: InFlightRequest, features: Features, answer: AnswerStats
) -> tuple[float, float] | None:
    """Return tokens and seconds of the prompt: reported, or from an undisturbed first byte."""
    tokens = answer.prompt_tokens
    if tokens is None or tokens < _TOKENS_MIN:
        return None
    if answer.prompt_seconds is not None:
        return (tokens, answer.prompt_seconds) if answer.prompt_seconds > 0 else None
    if flight.began is None or not answer.streamed or flight.crowd or features.cached:
        return None
    if answer.load_seconds is not None and answer.load_seconds > _LOAD_MIN:
        return None
    return tokens, flight.began - flight.at


def _output(flight: InFlightRequest, answer: AnswerStats, now: float) -> tuple[float, float] | None:
    """Return tokens and seconds of the output: reported, or from first byte to last."""
    tokens = answer.output_tokens
    if not tokens:
        return None
    if answer.output_seconds is not None:
        return (tokens, answer.output_seconds) if answer.output_seconds > 0 else None
    if flight.began is None or not answer.streamed:
        return None
    return tokens, now - flight.began


def _waited(flight: InFlightRequest, instance: ModelInstance, answer: AnswerStats) -> bool | None:
    """Return whether the request waited for a slot on the node; None if unknown."""
    if flight.crowd == 0:
        return False
    known = (answer.total_seconds, answer.prompt_seconds, answer.output_seconds)
    if None not in known:
        total, prompt, output = (float(each or 0.0) for each in known)
        idle = total - prompt - output - (answer.load_seconds or 0.0)
        return idle > _WAIT_MIN + _WAIT_SHARE * prompt
    if flight.began is None or not answer.streamed:
        return None
    prefill = (answer.prompt_tokens or 0) * instance.rates.prefill
    return flight.began - flight.at > _WAIT_MIN + (1 + _WAIT_SHARE) * prefill

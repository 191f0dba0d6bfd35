"""Generate the text of a simulated model from seed, model and prompt alone."""

import hashlib
import math
import random
import struct
from collections.abc import Iterable, Iterator
from itertools import islice

__all__ = ["count_tokens", "embedding", "limited", "speech"]

_TEXT = (
    "the light of a clear sky is scattered by small parts of air and blue waves bend more than "
    "red ones so we see it everywhere while evening rays have a longer way to go and lose their "
    "short waves before they reach us which makes the sun look warm and low when it sets behind "
    "hills rivers or cities and this is how one simple law paints every day in its own colours"
)
_WORDS = tuple(_TEXT.split())
_LENGTH_MEDIAN = 120
_LENGTH_MAX = 2000


def count_tokens(text: str) -> int:
    """About how many tokens a text has: three quarters of a word each."""
    return max(1, round(len(text.split()) * 4 / 3)) if text.strip() else 0


def speech(*seed: object) -> Iterator[str]:
    """Tokens, each with its leading blank, as many as the seed says (some hundred)."""
    rng = random.Random(hashlib.sha256(repr(seed).encode()).digest())
    length = min(_LENGTH_MAX, max(3, round(rng.lognormvariate(math.log(_LENGTH_MEDIAN), 0.5))))
    at = rng.randrange(len(_WORDS))
    for number in range(length):
        word = _WORDS[at % len(_WORDS)]
        at += 1 if rng.random() < 0.8 else rng.randrange(1, len(_WORDS))
        end = "." if number == length - 1 else ""
        yield (word.capitalize() if number == 0 else f" {word}") + end


def limited(
    words: Iterable[str], limit: int | None, stops: list[str], end: list[str]
) -> Iterator[str]:
    """At most `limit` tokens (negative or None: all), up to the first of `stops`.

    Text that may be the beginning of a stop is held back until that is known: an empty token
    stands where it was, and a later one has it all. `end` gets the reason for the end, `stop` or
    `length`.
    """
    stops = [stop for stop in stops if stop]
    source = iter(words)
    if limit is not None and limit >= 0:
        source = islice(source, limit)
    held = ""
    count = 0
    following = next(source, None)
    while following is not None:
        held += following
        count += 1
        following = next(source, None)
        found = [at for at in (held.find(stop) for stop in stops) if at >= 0]
        if found:
            end.append("stop")
            yield held[: min(found)]
            return
        keep = 0 if following is None else max((_overlap(held, stop) for stop in stops), default=0)
        yield held[: len(held) - keep]
        held = held[len(held) - keep :]
    end.append("length" if limit is not None and count == limit else "stop")


def _overlap(text: str, stop: str) -> int:
    """How many of the last characters of `text` are the beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)


def embedding(model: str, text: str, length: int) -> list[float]:
    """`length` numbers whose squares add up to one, the same for the same model and text."""
    return _normalised(
        struct.unpack(
            f"<{length}h", hashlib.shake_256(f"{model}\n{text}".encode()).digest(2 * length)
        )
    )


def _normalised(values: Iterable[float]) -> list[float]:
    given = list(values)
    norm = math.sqrt(sum(value * value for value in given)) or 1.0
    return [value / norm for value in given]

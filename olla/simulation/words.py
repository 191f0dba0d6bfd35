"""What a simulated model says: words that depend on seed, model and prompt, and on nothing else."""

import hashlib
import math
import random
from collections.abc import Iterator

__all__ = ["count_tokens", "embedding", "speech"]

_TEXT = (
    "the light of a clear sky is scattered by small parts of air and blue waves bend more than "
    "red ones so we see it everywhere while evening rays have a longer way to go and lose their "
    "short waves before they reach us which makes the sun look warm and low when it sets behind "
    "hills rivers or cities and this is how one simple law paints every day in its own colours"
)
_WORDS = tuple(_TEXT.split())
_LENGTH_MEDIAN = 120
_LENGTH_MAX = 2000
_DIMENSIONS = 256


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


def embedding(model: str, text: str) -> list[float]:
    """A vector of length one, the same for the same text."""
    rng = random.Random(hashlib.sha256(f"{model}\n{text}".encode()).digest())
    values = [rng.gauss(0, 1) for _ in range(_DIMENSIONS)]
    norm = math.sqrt(sum(value * value for value in values))
    return [value / norm for value in values]

"""Learn rates: how fast an endpoint loads, reads prompts and generates, and what requests are like.

Every estimate is a ratio of sums with exponential forgetting, shrunk toward a prior: a model on an
endpoint toward the endpoint's other models, an endpoint toward the fleet, the fleet toward a
constant. A new node thus has estimates at once, and observations soon outweigh the prior. Averages
are of seconds per token instead of tokens per second, because delays add up.
"""

from math import exp

__all__ = ["Arrivals", "EndpointRates", "FleetRates", "InstanceRates", "ModelHabits", "Ratio"]

_MEMORY = 0.98
"""The weight that an observation keeps after the next one: about the last fifty count."""
_SETTLED = 250
"""Observations after which a prior keeps less than one per cent of its weight."""
_TEACHES_EVERY = 8
"""Of responses at a well-known instance, one in this many updates the endpoint's estimates."""
_ARRIVALS_MEMORY = 300.0
"""Seconds over which arrivals are averaged: an Ollama server's usual keep-alive."""

# The prior without observations. A model of N bytes on an ordinary graphics card reads
# prompts at about 1e13/N tokens a second (2000 for 5 GB) and writes at about 4e11/N (80), which
# is its memory's bandwidth; disks deliver about 1 GB/s, the page cache about 4.
_PREFILL = 1.0e-13
_DECODE = 2.5e-12
_COLD = 1.0e-9
_WARM = 0.25e-9
"""Seconds per byte of model and token; seconds per byte of model."""
_OUTPUT = 200.0
_PROMPT = 500.0
_BYTES_PER_TOKEN = 4.5


class Ratio:
    """A ratio of two sums, in which recent terms count most."""

    __slots__ = ("over", "samples", "under")

    def __init__(self) -> None:
        self.over = 0.0
        self.under = 0.0
        self.samples = 0

    def add(self, over: float, under: float) -> None:
        """Add an observation."""
        self.over = self.over * _MEMORY + over
        self.under = self.under * _MEMORY + under
        self.samples += 1

    def value(self, prior: float, weight: float) -> float:
        """Return the ratio, as if `weight` of the lower sum had been observed at `prior` before.
        The prior is forgotten like every observation."""
        weight *= _MEMORY**self.samples
        return (self.over + prior * weight) / (self.under + weight)

    @property
    def settled(self) -> bool:
        """Whether so much was observed that the prior no longer counts."""
        return self.samples >= _SETTLED and self.under > 0


class Arrivals:
    """A rate of events: an exponentially forgotten count, per second."""

    __slots__ = ("_at", "_rate")

    def __init__(self) -> None:
        self._at = 0.0
        self._rate = 0.0

    def add(self, now: float) -> None:
        """Add an event."""
        self._rate = self.rate(now) + 1 / _ARRIVALS_MEMORY
        self._at = now

    def rate(self, now: float) -> float:
        """Return the recent events per second."""
        return self._rate * exp(min(0.0, self._at - now) / _ARRIVALS_MEMORY)


class ModelHabits:
    """Properties of requests for a model on any endpoint."""

    __slots__ = ("_output", "_prompt", "_text", "arrivals", "bytes_per_token", "output_tokens")

    def __init__(self) -> None:
        self.arrivals = Arrivals()
        self._prompt = Ratio()
        self._output = Ratio()
        self._text = Ratio()
        self.output_tokens = _OUTPUT
        """The expected length of a response in tokens."""
        self.bytes_per_token = _BYTES_PER_TOKEN
        """Bytes per token of a prompt's JSON text."""

    def answered(self, prompt_bytes: int, prompt_tokens: int | None, output: int | None) -> None:
        """Learn from a complete response with these counts."""
        if output is not None:
            self._output.add(output, 1.0)
            self.output_tokens = self._output.value(_OUTPUT, 2.0)
        if prompt_tokens:
            self._prompt.add(prompt_tokens, 1.0)
            if prompt_bytes:
                self._text.add(prompt_bytes, prompt_tokens)
                self.bytes_per_token = self._text.value(_BYTES_PER_TOKEN, 200.0)

    @property
    def prompt_tokens(self) -> float:
        """The expected length of a prompt in tokens."""
        return self._prompt.value(_PROMPT, 2.0)

    def tokens(self, prompt_bytes: int) -> float:
        """Return the expected tokens of a prompt with this many bytes of JSON text."""
        return prompt_bytes / self.bytes_per_token


class _Speeds:
    """The speed of a part of the fleet, per byte of model, so that models are comparable."""

    __slots__ = ("cold", "decode", "loads", "prefill", "version", "warm")

    def __init__(self) -> None:
        self.prefill = Ratio()
        self.decode = Ratio()
        self.cold = Ratio()
        self.warm = Ratio()
        self.version = 0
        self.loads = 0

    def learn_tokens(
        self, size: float, prompt: tuple[float, float] | None, output: tuple[float, float] | None
    ) -> None:
        if prompt is not None:
            self.prefill.add(prompt[1], prompt[0] * size)
        if output is not None:
            self.decode.add(output[1], output[0] * size)
        self.version += 1

    def learn_load(self, size: float, seconds: float, *, warm: bool) -> None:
        (self.warm if warm else self.cold).add(seconds, size)
        self.version += 1
        self.loads += 1


class FleetRates(_Speeds):
    """The estimates of the whole fleet."""

    __slots__ = ()

    def prior_prefill(self) -> float:
        """Seconds per byte of model and prompt token."""
        return self.prefill.value(_PREFILL, 1e13)

    def prior_decode(self) -> float:
        """Seconds per byte of model and output token."""
        return self.decode.value(_DECODE, 1e12)

    def prior_load(self, *, warm: bool) -> float:
        """Seconds of a load per byte of model."""
        return self.warm.value(_WARM, 1e10) if warm else self.cold.value(_COLD, 1e10)


class EndpointRates(_Speeds):
    """The estimates of one endpoint, shrunk toward the fleet.

    `bandwidth` is the configured speed of its disk in bytes per second, from which learning starts.
    """

    __slots__ = ("bandwidth", "fleet")

    def __init__(self, fleet: FleetRates, bandwidth: float | None = None) -> None:
        super().__init__()
        self.fleet = fleet
        self.bandwidth = bandwidth

    def prefill_per_byte(self) -> float:
        """Seconds per prompt token and byte of model."""
        return self.prefill.value(self.fleet.prior_prefill(), 1e12)

    def decode_per_byte(self) -> float:
        """Seconds per output token and byte of model."""
        return self.decode.value(self.fleet.prior_decode(), 1e11)

    def load_seconds(self, size: float, *, warm: bool) -> float:
        """Return the seconds to load a model of `size` bytes, from the page cache if `warm`."""
        prior = self.fleet.prior_load(warm=False) if self.bandwidth is None else 1 / self.bandwidth
        cold = self.cold.value(prior, 5e9)
        if not warm:
            return size * cold
        return size * min(cold, self.warm.value(self.fleet.prior_load(warm=True), 2e9))

    def learned(
        self,
        size: float,
        prompt: tuple[float, float] | None,
        output: tuple[float, float] | None,
    ) -> None:
        """Learn from a response: `(tokens, seconds)` of its prompt and of its output."""
        self.learn_tokens(size, prompt, output)
        self.fleet.learn_tokens(size, prompt, output)

    def loaded(self, size: float, seconds: float, *, warm: bool) -> None:
        """Learn from a load that ran alone."""
        self.learn_load(size, seconds, warm=warm)
        self.fleet.learn_load(size, seconds, warm=warm)


class InstanceRates:
    """The estimates of one model on one endpoint, shrunk toward the endpoint."""

    __slots__ = (
        "_cold",
        "_decode",
        "_known",
        "_load",
        "_prefill",
        "_seen",
        "_seen_loads",
        "_size",
        "_warm",
        "decode",
        "endpoint",
        "prefill",
    )

    def __init__(self, endpoint: EndpointRates, size: float) -> None:
        """`size` is the model's bytes."""
        self.endpoint = endpoint
        self._size = size
        self._prefill = Ratio()
        self._decode = Ratio()
        self._load = (Ratio(), Ratio())
        self._seen = self._seen_loads = -1
        self._known = False
        self._cold = self._warm = 0.0
        self.prefill = 0.0
        """Seconds per prompt token."""
        self.decode = 0.0
        """Seconds per output token."""
        self.refresh()

    @property
    def stale(self) -> bool:
        """Whether the endpoint has learned something that counts here, because little is known
        about this instance."""
        return self._seen != self.endpoint.version and not self._known

    def refresh(self) -> None:
        """Take over what the endpoint has learned, while little is known about this instance."""
        if self.stale:
            self._blend()

    def _blend(self) -> None:
        endpoint, size = self.endpoint, self._size
        self._seen = endpoint.version
        self._known = self._prefill.samples > 20 and self._decode.samples > 20
        prefill, decode = self._prefill, self._decode
        if prefill.settled:
            self.prefill = prefill.over / prefill.under
        else:
            self.prefill = prefill.value(endpoint.prefill_per_byte() * size, 300.0)
        if decode.settled:
            self.decode = decode.over / decode.under
        else:
            self.decode = decode.value(endpoint.decode_per_byte() * size, 50.0)

    def learned(
        self, prompt: tuple[float, float] | None, output: tuple[float, float] | None
    ) -> None:
        """Learn from a response: `(tokens, seconds)` of its prompt and of its output."""
        prefill, decode = self._prefill, self._decode
        if prompt is not None:
            prefill.add(prompt[1], prompt[0])
        if output is not None:
            decode.add(output[1], output[0])
        # A well-known instance adds little to the estimates of its endpoint.
        if (
            prefill.samples < _SETTLED
            or decode.samples < _SETTLED
            or not prefill.samples % _TEACHES_EVERY
        ):
            self.endpoint.learned(self._size, prompt, output)
        self._blend()

    def loaded(self, seconds: float, *, warm: bool) -> None:
        """Learn from a load that ran alone; `warm` if the file was in the page cache."""
        self._load[warm].add(seconds, 1.0)
        self.endpoint.loaded(self._size, seconds, warm=warm)

    def load_seconds(self, *, warm: bool) -> float:
        """Return the expected seconds of a load once it has begun."""
        if self._seen_loads != self.endpoint.fleet.loads:  # every load updates all other estimates
            self._seen_loads = self.endpoint.fleet.loads
            self._cold, self._warm = (
                self._load[each].value(self.endpoint.load_seconds(self._size, warm=each), 1.0)
                for each in (False, True)
            )
        return self._warm if warm else self._cold

"""Switches for what can go wrong on a node, to be thrown while it runs."""

import random

import msgspec

__all__ = ["Fault", "Faults", "Trouble"]


class Fault(msgspec.Struct, frozen=True):
    """One kind of trouble, for some requests.

    `count` requests and then no more (None: until it is taken away), of these `paths` only (none:
    inference), each with `probability`. `status` is the answer of `status`; `after` how many
    records of a stream go out before `reset_mid` and `end_early`; `seconds` (simulated) how long
    `slow` waits before the head and, a tenth of it, between tokens.
    """

    count: int | None = None
    paths: tuple[str, ...] = ()
    probability: float = 1.0
    status: int = 503
    after: int = 2
    seconds: float = 5.0


class Trouble(msgspec.Struct, frozen=True):
    """What happens to one request."""

    kind: str
    fault: Fault


class Faults:
    """The faults of a node by kind.

    `refuse` closes the listener; `hang` answers nothing; `reset_before` drops the connection
    before the head, `reset_mid` in the middle of a stream; `end_early` ends a stream cleanly
    without its last record; `status` answers with an error; `slow` is late; `garbage` sends bytes
    that are no HTTP; `garbage_body` sends JSON that is none.
    """

    KINDS = (
        "hang",
        "reset_before",
        "reset_mid",
        "end_early",
        "status",
        "slow",
        "garbage",
        "garbage_body",
    )
    INFERENCE = (
        "/api/generate",
        "/api/chat",
        "/api/embed",
        "/api/embeddings",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/messages",
    )

    def __init__(self, seed: int = 0) -> None:
        self._rng = random.Random(seed)
        self._active: dict[str, Fault] = {}

    def set(self, kind: str, fault: Fault | None = None) -> None:
        """Switch a kind of trouble on.

        Raises:
            ValueError: there is no such kind.
        """
        if kind not in self.KINDS:
            raise ValueError(f"no fault '{kind}'; there are {', '.join(self.KINDS)}")
        self._active[kind] = fault or Fault()

    def clear(self) -> None:
        """Switch all off."""
        self._active.clear()

    @property
    def active(self) -> dict[str, Fault]:
        """What is switched on."""
        return dict(self._active)

    def trouble(self, path: str) -> Trouble | None:
        """What happens to a request for `path`; counts it."""
        for kind, fault in self._active.items():
            if path not in (fault.paths or self.INFERENCE):
                continue
            if fault.probability < 1 and self._rng.random() >= fault.probability:
                continue
            if fault.count is not None:
                if fault.count <= 1:
                    del self._active[kind]
                else:
                    self._active[kind] = msgspec.structs.replace(fault, count=fault.count - 1)
            return Trouble(kind, fault)
        return None

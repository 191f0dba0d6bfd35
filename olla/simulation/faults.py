"""Inject faults into a running node."""

import random
from functools import cache

import msgspec

__all__ = ["Fault", "Faults", "Trouble", "absurd_list"]


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of trouble, for some requests.

    `count` requests and then no more (None: until it is taken away), of these `paths` only (none:
    inference; `*`: every path), each with `probability`. `status` is the answer of `status`;
    `after` how many records of a stream go out before it is cut or falls silent (of an answer that
    is no stream, half goes out); `seconds` (simulated) how long `slow` waits before the head
    and, a tenth of it, between the records of a stream, and how long `refuse` lasts.
    """

    count: int | None = None
    paths: tuple[str, ...] = ()
    probability: float = 1.0
    status: int = 503
    after: int = 2
    seconds: float = 5.0

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1:
            raise ValueError("a probability is between 0 and 1")
        if self.count is not None and self.count < 1:
            raise ValueError("a count is at least 1")
        if not 400 <= self.status <= 599:
            raise ValueError("a status is between 400 and 599")
        if self.seconds < 0 or self.after < 0:
            raise ValueError("seconds and records are not negative")


class Trouble(msgspec.Struct, frozen=True):
    """What happens to one request. `pause` is real seconds between the records of a stream."""

    kind: str
    fault: Fault
    pause: float = 0.0


class Faults:
    """The faults of a node by kind.

    `hang` answers nothing; `reset_before` resets the connection before the head, `reset_mid` in
    the middle of an answer, `hang_mid` falls silent there, `bad_framing` breaks the chunks;
    `end_early` ends an answer cleanly without its last part, `short_body` closes the connection
    before what its length has promised; `status`
    answers with an error; `slow` is late; `garbage` sends bytes that are no HTTP; `garbage_body`
    sends JSON that is none; `absurd_lists` answers lists (`/api/tags`, `/api/ps`) with numbers of
    400 digits, names of 100,000 characters and 12,000 models besides. Of several that fit a
    request, the one that was set first strikes.

    To refuse connections is the listener's business: `SimulatedNode.refuse` and `accept`.
    """

    KINDS = (
        "hang",
        "reset_before",
        "reset_mid",
        "hang_mid",
        "bad_framing",
        "end_early",
        "short_body",
        "status",
        "slow",
        "garbage",
        "garbage_body",
        "absurd_lists",
    )
    LISTS = ("/api/tags", "/api/ps")
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
        "/v1/audio/transcriptions",
    )

    def __init__(self, seed: int = 0) -> None:
        self._rng = random.Random(seed)
        self._active: dict[str, Fault] = {}

    def set(self, kind: str, fault: Fault | None = None) -> None:
        """Switch a kind of trouble on.

        Raises:
            ValueError: there is no such kind.
        """
        self._check(kind)
        self._active[kind] = fault or Fault()

    def replace(self, faults: dict[str, Fault]) -> None:
        """Have these faults switched on and no others.

        Raises:
            ValueError: there is no such kind; nothing has changed.
        """
        for kind in faults:
            self._check(kind)
        self._active = dict(faults)

    def clear(self, kind: str | None = None) -> None:
        """Switch one kind off, or all."""
        if kind is None:
            self._active.clear()
        else:
            self._active.pop(kind, None)

    @property
    def active(self) -> dict[str, Fault]:
        """What is switched on."""
        return dict(self._active)

    def trouble(self, path: str) -> Trouble | None:
        """What happens to a request for `path`; counts it."""
        for kind, fault in self._active.items():
            paths = fault.paths or (self.LISTS if kind == "absurd_lists" else self.INFERENCE)
            if path not in paths and "*" not in paths:
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

    def _check(self, kind: str) -> None:
        if kind not in self.KINDS:
            raise ValueError(f"no fault '{kind}'; there are {', '.join(self.KINDS)}")


@cache
def absurd_list() -> bytes:
    """A list of models that no sane server sends, in Ollama's format."""
    digits = "9" * 400
    odd = [
        f'{{"name":"huge:latest","model":"huge:latest","size":{digits},"size_vram":{digits}}}',
        f'{{"name":"{"n" * 100_000}","model":"x","size":-1,"expires_at":"{digits}"}}',
        '{"name":"bell\\u0007\\u001b[31m","model":"bell","size":1e308}',
        '{"name":null,"model":["a"],"size":{},"details":[[[[]]]],"digest":17}',
        "17",
    ]
    many = [f'{{"name":"m{n}:latest","model":"m{n}:latest","size":1}}' for n in range(12_000)]
    return f'{{"models":[{",".join([*odd, *many])}]}}'.encode()

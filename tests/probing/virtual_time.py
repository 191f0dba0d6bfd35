"""Run schedules in virtual time: a loop whose clock jumps to the next timer, and a scripted
endpoint without sockets."""

import asyncio
import functools
import random
import selectors
from collections.abc import Callable, Coroutine

from structlog.testing import LogCapture

from olla.fleet.endpoint import EndpointSpec
from olla.fleet.snapshot import EndpointView
from olla.probing.probe_client import Reply, Verdict
from olla.probing.slices import Slices
from olla.probing.watch import Watch, WatchServices
from tests.probing.logs import capturing_logger

__all__ = ["LoopClock", "Scripted", "Watched", "in_virtual_time"]


class _JumpingSelector(selectors.SelectSelector):
    """Advances the clock instead of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None):  # type: ignore[no-untyped-def]
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise AssertionError("deadlock: every task waits, and no timer is set")
        self.now += max(timeout, 0.0)
        return []


def _jumping_loop() -> asyncio.AbstractEventLoop:
    selector = _JumpingSelector()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    return loop


def in_virtual_time(
    test: Callable[..., Coroutine[None, None, None]],
) -> Callable[..., None]:
    """Run a coroutine test in a loop with virtual time; the test must not leave tasks behind."""

    async def checked(*args: object, **named: object) -> None:
        await test(*args, **named)
        await asyncio.sleep(0)
        running = asyncio.all_tasks() - {asyncio.current_task()}
        assert not running, f"still running: {running}"

    @functools.wraps(test)
    def run(*args: object, **named: object) -> None:
        with asyncio.Runner(loop_factory=_jumping_loop) as runner:
            runner.run(checked(*args, **named))

    return run


class LoopClock:
    """A clock that reads the loop's time."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return self.now() + 1_700_000_000.0


class Scripted:
    """Replaces a ProbeClient: answers by path, after a delay in seconds.

    `requests` holds the time, in seconds from the start, and the path of every request.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self.requests: list[tuple[float, str]] = []
        self.seconds: dict[str, float] = {}
        self.error: BaseException | None = None
        self.replies: dict[str, Reply] = {
            "/": Reply(Verdict.OK, b"Ollama is running"),
            "/api/version": Reply(Verdict.OK, b'{"version": "0.33.0"}'),
            "/api/tags": Reply(Verdict.OK, b'{"models": [{"name": "llama3:latest"}]}'),
            "/api/ps": Reply(Verdict.OK, b'{"models": []}'),
        }

    async def get(self, spec: EndpointSpec, path: str, most: int = 0) -> Reply:
        self.requests.append((round(self._loop.time() - self._start, 3), path))
        if self.error is not None:
            raise self.error
        seconds = self.seconds.get(path, 0.0)
        await asyncio.sleep(min(seconds, spec.check_timeout))
        if seconds > spec.check_timeout:
            return Reply(Verdict.TIMEOUT, error=f"GET {path} timed out")
        return self.replies.get(path) or Reply(Verdict.ABSENT, error=f"GET {path} answered 404")

    def times(self, path: str) -> list[float]:
        """Return the times of the requests for a path."""
        return [at for at, requested in self.requests if requested == path]

    def all_answer(self, verdict: Verdict, **more: object) -> None:
        """Give every path the same verdict."""
        reply = Reply(verdict, error=verdict.value, **more)  # type: ignore[arg-type]
        self.replies = dict.fromkeys(self.replies, reply)


class _NoJitter(random.Random):
    """A generator whose draws cause no jitter."""

    def random(self) -> float:
        return 0.5


class Watched:
    """A watch of a scripted endpoint, with all of its views and its log."""

    def __init__(self, list_interval: float = 30.0, **spec: object) -> None:
        known: dict[str, object] = {"type": "ollama", **spec}
        self.spec = EndpointSpec("a", "127.0.0.1", 1, authority="127.0.0.1:1", **known)  # type: ignore[arg-type]
        self.client = Scripted()
        self.views: list[EndpointView] = []
        self.fault: Exception | None = None
        """Error that the fleet returns for every view."""
        self.log = LogCapture()
        services = WatchServices(
            client=self.client,  # type: ignore[arg-type]
            clock=LoopClock(),
            rng=_NoJitter(),
            slices=Slices(),
            logger=capturing_logger(self.log),
            list_interval=lambda: list_interval,
        )
        self.watch = Watch(self.spec, 0, services, self._take)

    async def __aenter__(self) -> "Watched":
        self.watch.start()
        await self.watch.first_round()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.watch.stop()

    def _take(self, view: EndpointView) -> Exception | None:
        self.views.append(view)
        return self.fault

    @property
    def view(self) -> EndpointView:
        return self.watch.view

    @property
    def health(self) -> str:
        return self.watch.view.health.value

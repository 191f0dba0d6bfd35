"""Enforce limits across all routers, through a Redis or Valkey server.

Redis decides (`olla.state.scripts`), in one round trip per request, and returns the level of each
meter. The levels are copied to this router's own meters, so headers show the shared usage, and the
local limiter continues from there while Redis is unavailable. Requests are then decided locally,
and none is rejected or delayed because of Redis.

Unavailability has a cost: requests and tokens that routers accept meanwhile are not reported to
Redis later, and earlier reservations remain until they have drained. Leases of in-flight requests
are reported as soon as Redis is back; those of a dead router end by expiry.

Supported are one server, and one with replicas, but not Redis Cluster. (All keys of a caller have
the same hash tag, so each script would find its keys on one node; but redirections are not
followed.)
"""

import asyncio
from collections.abc import Callable
from itertools import count

from structlog.typing import FilteringBoundLogger

from olla.access.limit import LimitKind
from olla.access.limiter import Account, Charge, Limiter, Meter
from olla.clock import Clock
from olla.state.redis_pipeline import Answer, RedisPipeline, Word
from olla.state.redis_pubsub import CHANNEL, RedisSubscriber
from olla.state.scripts import CHARGE, RENEW, SETTLE
from olla.tasks import spawn

__all__ = ["SharedLimits"]

_LEASE = 60.0
_LETTERS = {
    LimitKind.REQUESTS: "r",
    LimitKind.TOKENS: "t",
    LimitKind.CONCURRENT: "c",
    LimitKind.DAILY: "d",
}


def _server_time() -> tuple[Word, Word]:
    return "", ""


class SharedLimits:
    """The limits that this router shares with others.

    `up` says whether Redis is available; `fallbacks` counts the requests decided without it.
    """

    def __init__(
        self,
        url: str,
        limiter: Limiter,
        clock: Clock,
        *,
        timeout: float = 0.1,
        logger: FilteringBoundLogger,
        name: str,
        lease: float = _LEASE,
        pause: float = 1.0,
        time: Callable[[], tuple[Word, Word]] = _server_time,
    ) -> None:
        """`timeout` is the time limit of Redis in seconds, `pause` the seconds between a failure
        and the next attempt. `name` identifies this router: a random word without blanks. The
        leases of a router end `lease` seconds after its last sign of life. `time` replaces the
        server's: seconds since 1970, and microseconds.

        Raises:
            ValueError: the URL is not one of a Redis server.
        """
        self.fallbacks = 0
        self.on_announced: Callable[[str], None] = lambda _: None
        """Called with announcements of other routers, and with "" if some may have been missed.
        Must not raise."""
        self._limiter = limiter
        self._clock = clock
        self._name = name
        self._lease = lease
        self._time = time
        self._numbers = count(1)
        self._leases: dict[str, set[str]] = {}
        self._unsaid = False
        self._link = RedisPipeline(
            url, timeout=timeout, pause=pause, returned=self._on_returned, logger=logger
        )
        self._announcements = RedisSubscriber(
            url, name, lambda what: self.on_announced(what), pause=pause
        )
        self._renewing: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        """Whether Redis is available."""
        return self._link.up

    async def start(self) -> None:
        """Connect. Until Redis is available, this router's own limits apply."""
        await asyncio.gather(self._link.start(), self._announcements.start())
        self._renewing = spawn(self._renew_for_ever())

    async def stop(self) -> None:
        """Report pending settlements and disconnect."""
        renewing, self._renewing = self._renewing, None
        if renewing is not None:
            renewing.cancel()
            await asyncio.wait([renewing])
        await asyncio.gather(self._link.stop(), self._announcements.stop())

    async def charge(self, account: Account, tokens: int) -> Charge:
        """Charge a request with an estimate of its tokens, if it fits all meters."""
        charge = Charge(account, tokens)
        if not account.meters:
            self._limiter.hold(charge, 0)
            return charge
        charge.name = f"{self._name}:{next(self._numbers)}"
        return await self._charge(charge, None)

    async def recharge(self, charge: Charge, tokens: int) -> Charge:
        """Replace the charge of an in-flight request by a new estimate, see `Limiter.recharge`."""
        if not charge.held or not charge.account.meters:
            return charge
        self._limiter.cancel(charge, self._clock.now(), self._clock.wall())
        for meter in charge.counted:
            if meter.kind is LimitKind.CONCURRENT:
                self._leave(meter, charge.name)
        again = Charge(charge.account, tokens)
        again.name = charge.name
        return await self._charge(again, charge if charge.shared else None)

    async def _charge(self, charge: Charge, replaces: Charge | None) -> Charge:
        answer = self._ask(charge, replaces)
        text = None if answer is None else await self._answered(answer, charge)
        if text is None:
            self.fallbacks += 1
            return self._decide(charge)
        self._read(charge, text)
        return charge

    def settle(self, charge: Charge, tokens: int) -> None:
        """Settle the charge of a request that ended, with its total tokens. A second call has no
        effect. Does not wait: Redis is updated in the background, or not at all while it is
        unavailable."""
        if not charge.held:
            return
        self._limiter.settle(charge, tokens, self._clock.now(), self._clock.wall())
        more = tokens - charge.tokens if charge.shared else 0
        keys, words = [], [*self._time(), charge.name, more, charge.day]
        for meter in charge.counted:
            if meter.kind is LimitKind.CONCURRENT:
                self._leave(meter, charge.name)
            elif not more or meter.kind is LimitKind.REQUESTS:
                continue
            keys.append(_key(meter))
            words += _LETTERS[meter.kind], meter.interval
        if keys:
            self._link.run(SETTLE, keys, words)

    async def announce(self, what: str) -> None:
        """Announce to all other routers: at once, or, if Redis is unavailable, as a notice of
        missed announcements when it is back."""
        answer = self._link.publish(CHANNEL, f"{self._name} {what}")
        if answer is None or await answer is None:
            self._unsaid = True

    def _ask(self, charge: Charge, replaces: Charge | None) -> Answer | None:
        if not self._link.up:
            return None
        words: list[Word] = [*self._time(), charge.name, self._lease, charge.tokens]
        words.append(replaces.day if replaces is not None else 0)
        counted = replaces.counted if replaces is not None else ()
        before: Word = replaces.tokens if replaces is not None else ""
        keys = []
        for meter in charge.account.meters:
            limit, kind = meter.limit, meter.kind
            keys.append(_key(meter))
            words += _LETTERS[kind], int(limit.shadow), limit.amount
            if kind is LimitKind.DAILY:
                words += meter.day, meter.level
            else:
                words += meter.interval, meter.window
            words.append(before if meter in counted else "")
        return self._link.run(CHARGE, keys, words)

    async def _answered(self, answer: Answer, charge: Charge) -> bytes | None:
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            answer.add_done_callback(lambda answer: self._give_back(charge, answer))
            raise

    def _give_back(self, charge: Charge, answer: Answer) -> None:
        """Release a charge whose request was abandoned."""
        text = None if answer.cancelled() else answer.result()
        if text is not None:
            self._read(charge, text)
            self.settle(charge, 0)

    def _read(self, charge: Charge, text: bytes) -> None:
        """Apply the decision of Redis."""
        self._limiter.refresh(charge.account)
        meters = charge.account.meters
        refused, wait, day, *told = text.split()
        now = self._clock.now()
        levels = []
        for meter, each in zip(meters, told, strict=True):
            exceeded, _, level = each.partition(b":")
            levels.append(float(level))
            if exceeded == b"1":
                charge.exceeded.append(meter)
        if refused != b"0":
            charge.refused, charge.retry_after = meters[int(refused) - 1], float(wait)
        else:
            charge.shared = True
            self._hold(charge, int(day))
        for meter, full in zip(meters, levels, strict=True):
            meter.learn(full, int(day), now)

    def _decide(self, asked: Charge) -> Charge:
        """Decide without Redis: in-flight requests of other routers are unknown."""
        self._limiter.refresh(asked.account)
        for meter in asked.account.meters:
            if meter.kind is LimitKind.CONCURRENT:
                meter.level = 0.0
        charge = self._limiter.charge(
            asked.account, asked.tokens, self._clock.now(), self._clock.wall()
        )
        charge.name = asked.name
        if charge.held:
            self._enter(charge)
        return charge

    def _hold(self, charge: Charge, day: int) -> None:
        self._limiter.hold(charge, day)
        self._enter(charge)

    def _enter(self, charge: Charge) -> None:
        for meter in charge.counted:
            if meter.kind is LimitKind.CONCURRENT:
                self._leases.setdefault(_key(meter), set()).add(charge.name)

    def _leave(self, meter: Meter, name: str) -> None:
        key = _key(meter)
        names = self._leases.get(key, set())
        names.discard(name)
        if not names:
            self._leases.pop(key, None)

    def _on_returned(self) -> None:
        self._renew()
        if self._unsaid:
            self._unsaid = False
            self._link.publish(CHANNEL, f"{self._name} ")

    def _renew(self) -> None:
        for key, names in self._leases.items():
            self._link.run(RENEW, [key], [*self._time(), self._lease, *names])

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            self._renew()


def _key(meter: Meter) -> str:
    caller, _, name = meter.key.rpartition("|")
    return f"olla:{{{caller}}}|{name}"

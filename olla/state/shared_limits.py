"""Limits that hold for all routers together, by way of a Redis or Valkey server.

Redis decides (`olla.state.scripts`), in one round trip a request, and says how full each meter is
now. That is written into this router's own meters, so that headers tell what all have used, and
the local limiter goes on from there while Redis is away: then every request is decided here, and
none is refused or kept waiting because of Redis.

What is lost while it is away: requests and tokens that each router lets through are not told to
Redis afterwards, and what was reserved there before stays reserved until it has drained. Places
that are taken up are told as soon as it is back, those of a router that has died come back when
their leases end.

One server, or one with replicas: not a Redis Cluster. (All keys of a caller carry the same hash
tag, so each script would find its keys on one node; but redirections are not followed.)
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

    `up` says whether Redis is there, `fallbacks` counts the requests that were decided without it.
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
        """`timeout` is how many seconds Redis may take, and `pause` how many it is left alone when
        it failed. `name` is this router's, a random word without blanks. A place that a router has
        taken is free again `lease` seconds after the router was last heard of. `time` replaces the
        server's: seconds since 1970, and microseconds.

        Raises:
            ValueError: it is no URL of a Redis.
        """
        self.fallbacks = 0
        self.on_announced: Callable[[str], None] = lambda _: None
        """Takes what other routers announce, and "" when something may have been missed; must not
        raise."""
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
        """Whether Redis is there."""
        return self._link.up

    async def start(self) -> None:
        """Connect. Without Redis, this router's own limits hold until it is there."""
        await asyncio.gather(self._link.start(), self._announcements.start())
        self._renewing = spawn(self._renew_for_ever())

    async def stop(self) -> None:
        """Disconnect, after what has been settled was told."""
        renewing, self._renewing = self._renewing, None
        if renewing is not None:
            renewing.cancel()
            await asyncio.wait([renewing])
        await asyncio.gather(self._link.stop(), self._announcements.stop())

    async def charge(self, account: Account, tokens: int) -> Charge:
        """Charge one request with an estimate of its tokens, if it fits with all meters."""
        charge = Charge(account, tokens)
        if not account.meters:
            self._limiter.hold(charge, 0)
            return charge
        charge.name = f"{self._name}:{next(self._numbers)}"
        return await self._charge(charge, None)

    async def recharge(self, charge: Charge, tokens: int) -> Charge:
        """Charge a request that is under way by another estimate, see `Limiter.recharge`."""
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
        """The request has ended, and took so many tokens in all. Does nothing twice, and does not
        wait: Redis is told in the background, or, while it is away, not at all."""
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
        """Tell all other routers, at once or, while Redis is away, that they have missed
        something when it is back."""
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
        """Whoever asked has left meanwhile."""
        text = None if answer.cancelled() else answer.result()
        if text is not None:
            self._read(charge, text)
            self.settle(charge, 0)

    def _read(self, charge: Charge, text: bytes) -> None:
        """What Redis has decided."""
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
        """Without Redis: what others have under way is not known."""
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

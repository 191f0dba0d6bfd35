"""Count requests and tokens against limits, and decide whether a request fits.

Limits per minute go by the generic cell rate algorithm (ITU-T Recommendation I.371, appendix I;
the virtual scheduling form): a meter stores the time at which it would be empty again, the
theoretical arrival time, and each unit delays it by one interval. The algorithm is exact, needs one
number per meter, and has no windows at whose edges twice the limit passes.

A charge is all or nothing: a request that one limit rejects is not charged to the others. Tokens
are charged by an estimate when a request begins, and settled with the real number when it ends.
Time is an argument; nothing waits.
"""

from typing import Final

from olla.access.limit import Limit, LimitKind, Per

__all__ = ["DAY", "Account", "Charge", "Limiter", "Meter"]

DAY = 86_400
_SLACK = 1e-6
"""Seconds. Tolerance for sums of fractions."""
_SWEPT = 10_000
"""Meters and accounts that are kept before the first sweep."""
_REQUESTS: Final = LimitKind.REQUESTS
_TOKENS: Final = LimitKind.TOKENS
_CONCURRENT: Final = LimitKind.CONCURRENT
_DAILY: Final = LimitKind.DAILY


class Meter:
    """One limit for one caller.

    Depending on the limit's kind, `level` is the theoretical arrival time (monotonic seconds), the
    number of requests in flight at other routers, or the tokens of day number `day` (since 1970,
    UTC). `held` is the number of this router's in-flight requests that it counts.
    """

    __slots__ = ("day", "held", "interval", "key", "kind", "level", "limit", "window")

    def __init__(self, key: str, limit: Limit) -> None:
        self.key = key
        self.kind = limit.kind
        self.limit = limit
        self.interval = limit.interval
        self.window = limit.window
        self.level = 0.0
        self.day = 0
        self.held = 0

    def become(self, limit: Limit, now: float) -> None:
        """Replace the limit by another of the same name. Usage is kept."""
        if self.interval:
            used = max(self.level - now, 0.0) / self.interval
            self.level = now + used * limit.interval
        self.limit, self.interval, self.window = limit, limit.interval, limit.window

    def learn(self, level: float, day: int, now: float) -> None:
        """Take over the shared usage of all routers: seconds until the meter is empty, requests in
        flight including this router's, or the tokens of `day`."""
        if self.kind is _CONCURRENT:
            self.level = max(level - self.held, 0.0)
        elif self.kind is _DAILY:
            self.day, self.level = day, level
        else:
            self.level = now + level

    def wait(self, tokens: int, now: float, wall: float) -> float:
        """Seconds until one more request with so many tokens fits; not above 0 when it does.

        More tokens than a burst has fit when nothing is used: else they would never. How long
        somebody else's request takes is not known; for those the answer is a second.
        """
        if self.kind is _CONCURRENT:
            return 1.0 if self.level + self.held >= self.limit.amount else 0.0
        if self.kind is _DAILY:
            used = self.level if self.day == int(wall) // DAY else 0.0
            fits = used + tokens <= self.limit.amount or used == 0
            return 0.0 if fits else DAY - wall % DAY
        ahead = max(self.level - now, 0.0)
        more = self.interval if self.kind is _REQUESTS else self.interval * tokens
        wait = min(ahead + more - self.window, ahead)
        return wait if wait > _SLACK else 0.0

    def put(self, tokens: float, requests: int, now: float, wall: float) -> None:
        """Count requests and tokens; negative numbers give back. In-flight requests are counted in
        `held`."""
        if self.kind is _CONCURRENT:
            return
        if self.kind is _DAILY:
            day = int(wall) // DAY
            if self.day != day:
                self.day, self.level = day, 0.0
            self.level = max(self.level + tokens, 0.0)
        else:
            more = requests if self.kind is _REQUESTS else tokens
            self.level = max(self.level, now) + more * self.interval

    def left(self, now: float, wall: float) -> int:
        """Return how many more requests or tokens would fit now."""
        if self.kind is _CONCURRENT:
            return max(int(self.limit.amount - self.level - self.held), 0)
        if self.kind is _DAILY:
            used = self.level if self.day == int(wall) // DAY else 0.0
            return max(int(self.limit.amount - used), 0)
        ahead = max(self.level - now, 0.0)
        return max(int((self.window - ahead + _SLACK) / self.interval), 0)

    def reset(self, now: float, wall: float) -> float:
        """Return the seconds until the meter is empty."""
        if self.kind is _CONCURRENT:
            return 0.0
        if self.kind is _DAILY:
            return DAY - wall % DAY
        return max(self.level - now, 0.0)

    def idle(self, now: float, wall: float) -> bool:
        """Whether the meter can be dropped without effect."""
        if self.held:
            return False
        if self.kind is _DAILY:
            return self.day != int(wall) // DAY or self.level == 0
        return self.kind is _CONCURRENT or self.level <= now


class Account:
    """All limits of one caller in one category."""

    __slots__ = ("caller", "counts_tokens", "limits", "meters", "shown", "sweeps")

    def __init__(self, caller: str, meters: tuple[Meter, ...], sweeps: int) -> None:
        self.caller = caller
        self.sweeps = sweeps
        """The limiter's number of sweeps when it last confirmed these meters."""
        self.counts_tokens = any(meter.kind in (_TOKENS, _DAILY) for meter in meters)
        self.limits = tuple(meter.limit for meter in meters)
        self.use(meters)

    def use(self, meters: tuple[Meter, ...]) -> None:
        """Replace the meters."""
        self.meters = meters
        self.shown = [meter for meter in meters if meter.kind is _REQUESTS] or list(meters)
        """The meters that `X-RateLimit-*` reports unless another limit rejects."""

    def tokens_left(self, now: float, wall: float) -> int:
        """Return how many tokens would still fit; 0 if no limit counts tokens."""
        left = [
            meter.left(now, wall)
            for meter in self.meters
            if meter.kind in (_TOKENS, _DAILY) and not meter.limit.shadow
        ]
        return min(left, default=0)

    def tightest(self, now: float, wall: float) -> Meter | None:
        """Return the meter with the least left, preferring limits of requests; None without
        limits."""
        shown = self.shown
        if not shown:
            return None
        best, least = shown[0], shown[0].left(now, wall)
        for meter in shown[1:]:
            left = meter.left(now, wall)
            if left < least:
                best, least = meter, left
        return best


class Charge:
    """The charge of one request: `tokens` are reserved, or it was `refused` by a limit and may be
    repeated after `retry_after` seconds. `exceeded` are shadow limits that did not count it. `day`
    is the day whose budget was charged."""

    __slots__ = (
        *("account", "day", "exceeded", "held", "name", "refused", "retry_after", "shared"),
        "tokens",
    )

    def __init__(self, account: Account, tokens: int) -> None:
        self.account = account
        self.tokens = tokens
        self.day = 0
        self.refused: Meter | None = None
        self.retry_after = 0.0
        self.exceeded: list[Meter] = []
        self.held = False
        self.name = ""
        """Its name among the in-flight requests that routers share."""
        self.shared = False
        """Whether the shared limits were charged, not only this router's."""

    @property
    def counted(self) -> tuple[Meter, ...]:
        """The meters that count the request while it is in flight."""
        meters = self.account.meters
        if not self.exceeded:
            return meters
        return tuple(meter for meter in meters if meter not in self.exceeded)


class Limiter:
    """The meters of one router. Idle meters are dropped even while an account refers to them: the
    next charge finds their replacements.
    """

    __slots__ = ("_accounts", "_meters", "_sweeps", "_swept_at")

    def __init__(self) -> None:
        self._meters: dict[str, Meter] = {}
        self._accounts: dict[tuple[str, str, str], tuple[tuple[Limit, ...], Account]] = {}
        self._swept_at = _SWEPT
        self._sweeps = 0

    def account(
        self,
        caller: str,
        category: str,
        limits: tuple[Limit, ...],
        now: float,
        wall: float,
        address: str = "",
    ) -> Account:
        """Return the account of a caller in a category. `limits` are those in force; `address` is
        the anonymous caller's id of the same address, if a limit counts per address."""
        key = (caller, category, address)
        known = self._accounts.get(key)
        if known is not None and known[0] == limits:
            return known[1]
        if len(self._meters) + len(self._accounts) >= self._swept_at:
            self._sweep(now, wall)
        counted = {Per.CALLER: caller, Per.ADDRESS: address, Per.ALL: "*"}
        meters = [self._meter(counted[limit.per], limit, now) for limit in limits]
        account = Account(caller, tuple(meters), self._sweeps)
        self._accounts[key] = (limits, account)
        return account

    def refresh(self, account: Account) -> None:
        """Replace an account's meters that were dropped since its last use."""
        if account.sweeps != self._sweeps:
            known = self._meters
            account.sweeps = self._sweeps
            account.use(tuple([known.setdefault(each.key, each) for each in account.meters]))

    def charge(self, account: Account, tokens: int, now: float, wall: float) -> Charge:
        """Charge a request with an estimate of its tokens, if it fits."""
        self.refresh(account)
        charge = Charge(account, tokens)
        for meter in account.meters:
            wait = meter.wait(tokens, now, wall)
            if wait <= 0:
                continue
            if meter.limit.shadow:
                charge.exceeded.append(meter)
            elif wait > charge.retry_after:
                charge.refused, charge.retry_after = meter, wait
        if charge.refused is None:
            self.hold(charge, int(wall) // DAY)
            for meter in charge.counted:
                meter.put(tokens, 1, now, wall)
        return charge

    def recharge(self, charge: Charge, tokens: int, now: float, wall: float) -> Charge:
        """Replace the charge of an in-flight request by a new estimate, if that fits.

        The first charge is undone in any case.
        """
        self.cancel(charge, now, wall)
        return self.charge(charge.account, tokens, now, wall)

    def cancel(self, charge: Charge, now: float, wall: float) -> None:
        """Undo a charge. A second call has no effect."""
        if not charge.held:
            return
        charge.held = False
        for meter in charge.counted:
            meter.held -= 1
            if meter.kind is not _DAILY or int(wall) // DAY == charge.day:
                meter.put(-charge.tokens, -1, now, wall)

    def hold(self, charge: Charge, day: int) -> None:
        """Mark a charge that fits as in flight until it is settled. Counts neither requests nor
        tokens."""
        charge.held, charge.day = True, day
        for meter in charge.counted:
            meter.held += 1

    def settle(self, charge: Charge, tokens: int, now: float, wall: float) -> None:
        """Settle the charge of a request that ended, with its total tokens. A second call has no
        effect."""
        if not charge.held:
            return
        charge.held = False
        more = tokens - charge.tokens
        for meter in charge.counted:
            meter.held -= 1
            if not more or meter.kind is _REQUESTS:
                continue
            if more < 0 and meter.kind is _DAILY and int(wall) // DAY != charge.day:
                continue  # the reservation was charged to yesterday's budget
            meter.put(more, 0, now, wall)

    def spent(self, caller: str, limits: tuple[Limit, ...], tokens: int, wall: float) -> None:
        """Restore a caller's usage of today from the store, from before this process."""
        for limit in limits:
            if limit.kind is _DAILY:
                self._meter(caller, limit, 0.0).put(tokens, 0, 0.0, wall)

    def _meter(self, caller: str, limit: Limit, now: float) -> Meter:
        key = f"{caller}|{limit.name}"
        meter = self._meters.get(key)
        if meter is None:
            self._meters[key] = meter = Meter(key, limit)
        elif meter.limit != limit:  # charges under way keep hold of the meter
            meter.become(limit, now)
        return meter

    def _sweep(self, now: float, wall: float) -> None:
        meters = {key: meter for key, meter in self._meters.items() if not meter.idle(now, wall)}
        self._accounts = {
            key: (limits, account)
            for key, (limits, account) in self._accounts.items()
            if any(meter.key in meters for meter in account.meters)
        }
        for _, account in self._accounts.values():
            meters.update((meter.key, meter) for meter in account.meters)
        self._meters = meters
        self._sweeps += 1
        self._swept_at = max(_SWEPT, 2 * (len(meters) + len(self._accounts)))

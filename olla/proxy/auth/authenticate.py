"""Authenticates callers and charges their limits: the shell around `access`.

`identify` finds the caller of a request by its key, a `Quota` charges its limits and settles them.
Nothing waits, except in routers that share their limits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from math import ceil
from typing import Final, Protocol

from olla.access.caller import Caller, client_address, of_address
from olla.access.keyring import Keyring, UnknownKey, refuse_key
from olla.access.keys import KEY_PREFIX
from olla.access.limit import Limit, LimitKind
from olla.access.limiter import Account, Charge, Limiter, Meter
from olla.access.policy import OUTPUT_UNSAID, AccessPolicy, reserve
from olla.clock import Clock
from olla.failures import Failed, Failure, Kind
from olla.proxy.http.request import IncomingRequest
from olla.record import RequestRecord
from olla.routing.features import Features
from olla.tasks import report, spawn

__all__ = ["Authenticator", "Quota", "Shared", "SurfaceQuota"]

_NOTHING: Mapping[str, tuple[Limit, ...]] = {}
_HIDES: Final = {name: frozenset({name}) for name in (b"authorization", b"x-api-key")}
_ADDRESSES_MAX = 10_000
_FIELDS = b"X-RateLimit-Limit: %d\r\nX-RateLimit-Remaining: %d\r\nX-RateLimit-Reset: %d\r\n"
_REQUESTS: Final = LimitKind.REQUESTS
_CONCURRENT: Final = LimitKind.CONCURRENT
_OF_TOKENS: Final = frozenset({LimitKind.TOKENS, LimitKind.DAILY})


class Shared(Protocol):
    """Limits that several routers share."""

    async def charge(self, account: Account, tokens: int) -> Charge:
        """Charge one request, whatever router it comes to. Does not raise."""
        ...

    async def recharge(self, charge: Charge, tokens: int) -> Charge:
        """Charge it by another estimate. Does not raise."""
        ...

    def settle(self, charge: Charge, tokens: int) -> None:
        """It has ended."""
        ...


class SurfaceQuota:
    """What a surface brings of its own: its name, the limits of tiers of which the configuration
    says nothing (None: limits of tiers do not count there), and whether `X-RateLimit-Reset` is a
    Unix time (else seconds)."""

    __slots__ = ("name", "tiers", "unix_reset")

    def __init__(
        self,
        name: str = "",
        tiers: Mapping[str, tuple[Limit, ...]] | None = _NOTHING,
        *,
        unix_reset: bool = False,
    ) -> None:
        self.name = name
        self.tiers = tiers
        self.unix_reset = unix_reset


_PLAIN: Final = SurfaceQuota()


class Authenticator:
    """Authenticates requests, and opens the accounts that they are charged to."""

    def __init__(
        self,
        keyring: Keyring,
        policy: AccessPolicy,
        limiter: Limiter,
        clock: Clock,
        *,
        exceeded: Callable[[str, bool], None],
    ) -> None:
        """`exceeded` is told the name of each limit that somebody has reached, and whether it was
        one that only watches."""
        self.keyring = keyring
        self._policy = policy
        self.limiter = limiter
        self.clock = clock
        self.exceeded = exceeded
        self.shared: Shared | None = None
        """Charges for all routers, where they share."""
        self.renew: Callable[[], Awaitable[None]] | None = None
        """Reads the store's keys again, where there is a store."""
        self._addresses: dict[str, Caller] = {}

    @property
    def policy(self) -> AccessPolicy:
        """The rules in force."""
        return self._policy

    def adopt(self, policy: AccessPolicy) -> None:
        """Go by other rules from now on."""
        self._policy = policy
        self._addresses.clear()  # anonymous callers have their rights from it

    def identify(self, incoming: IncomingRequest, *, strict: bool = False) -> Caller:
        """The caller of a request. `strict`: refuse unknown keys even where no keys are in use.

        Raises:
            UnknownKey: it shows a key that is not known here.
            Failed: its key is revoked or expired, or it shows none and keys are required.
        """
        shown = incoming.credentials
        policy = self._policy
        if shown:
            found: Caller | None = None
            refusal: Failure | None = None
            unknown = shown[0][1]
            for field, key in shown:
                caller = self.keyring.find(key)
                if caller is None:
                    if not key.startswith(KEY_PREFIX):
                        continue
                    unknown = key  # of several, the one that has to be one of ours
                hidden = incoming.hidden
                incoming.hidden = _HIDES[field] if hidden is None else hidden | _HIDES[field]
                if caller is not None and found is None:
                    refused = self.keyring.refusal(caller, self.clock.wall())
                    if refused is None:
                        found = caller
                    else:
                        refusal = refused
            if found is not None:
                return found
            if refusal is not None:
                raise Failed(refusal)
            if strict or policy.guarded or unknown.startswith(KEY_PREFIX):
                raise UnknownKey(refuse_key(unknown))
        if policy.require_key:
            raise Failed(refuse_key(None))
        return self.anonymous(incoming)

    def quota(
        self, caller: Caller, category: str, incoming: IncomingRequest, own: SurfaceQuota = _PLAIN
    ) -> "Quota":
        """A caller's request in a category, not charged yet."""
        limits = self._policy.limits(caller, category, own.tiers, own.name)
        account = None
        if limits:
            clock = self.clock
            account = self.limiter.account(
                caller.account,
                category + own.name,
                limits,
                clock.now(),
                clock.wall(),
                self.anonymous(incoming).id if self._policy.per_address else "",
            )
        return Quota(self, caller, account, own.unix_reset)

    def quota_of_rejected(
        self, incoming: IncomingRequest, category: str, own: SurfaceQuota = _PLAIN
    ) -> "Quota":
        """The visit of a rejected request: it counts against its key if that is known, else
        against its address."""
        known = [caller for _, key in incoming.credentials if (caller := self.keyring.find(key))]
        return self.quota(known[0] if known else self.anonymous(incoming), category, incoming, own)

    def anonymous(self, incoming: IncomingRequest) -> Caller:
        """The caller by its address alone, whatever key it shows."""
        address = self._address(incoming)
        known = self._addresses.get(address)
        if known is None:
            if len(self._addresses) >= _ADDRESSES_MAX:
                self._addresses.clear()
            known = self._addresses[address] = of_address(address, self._policy.anonymous)
        return known

    def _address(self, incoming: IncomingRequest) -> str:
        trusted = self._policy.trusted
        if not trusted:
            return incoming.peer
        return client_address(incoming.peer, incoming.listed("X-Forwarded-For"), trusted)


class Quota:
    """One request of a caller, with what it is charged."""

    __slots__ = ("_charge", "_dated", "_left", "_task", "account", "authenticator", "caller")

    def __init__(
        self, authenticator: Authenticator, caller: Caller, account: Account | None, unix: bool
    ) -> None:
        self.caller = caller
        self.account = account
        self.authenticator = authenticator
        self._dated = unix
        self._charge: Charge | None = None
        self._task: asyncio.Task[None] | None = None
        self._left = False

    def note(self, record: RequestRecord) -> None:
        """Write down who asks."""
        caller = self.caller
        record.caller = caller.id
        record.tier = caller.tier
        key = caller.key
        if key is not None:
            record.owner = key.owner
            record.key_name = key.name

    def pay(self, features: Features | None, then: Callable[[Failure | None], None]) -> None:
        """Charge it, or correct what was reserved, and call back with the refusal or None: at
        once, unless routers share their limits.

        `features` of what it asks a model for, None where that is not known.
        """
        account = self.account
        if account is None:
            then(None)
            return
        tokens = 0
        if account.counts_tokens and features is not None:
            tokens = reserve(
                account.limits, features.prompt_tokens, features.prompt_bytes, features.output_max
            )
        self._take(account, tokens, then)

    def reserve(self, length: int | None, then: Callable[[Failure | None], None]) -> None:
        """Charge it before its body is read, of `length` bytes where that is known, and call back
        as `pay` does, which has to follow."""
        account = self.account
        if account is None:
            then(None)
        else:
            self._take(account, self._estimate(account, length), then)

    async def reserved(self, length: int | None) -> None:
        """The same as `reserve`, unless it was charged before.

        Raises:
            Failed: a limit is reached.
        """
        account = self.account
        if account is not None and self._charge is None:
            await self._taken(account, self._estimate(account, length))

    async def paid(self) -> None:
        """Charge a request that asks nothing of a model, if it was not charged before.

        Raises:
            Failed: a limit is reached.
        """
        account = self.account
        if account is not None and self._charge is None:
            await self._taken(account, 0)

    def _estimate(self, account: Account, length: int | None) -> int:
        """Tokens to reserve for a body that is still to come. No more than are left, but one: the
        estimate alone refuses nobody as long as there are any."""
        if not account.counts_tokens:
            return 0
        clock = self.authenticator.clock
        most = max(account.tokens_left(clock.now(), clock.wall()), 1)
        return max(min(reserve(account.limits, 0.0, length or 0, 0.0), most), 1)

    def _take(self, account: Account, tokens: int, then: Callable[[Failure | None], None]) -> None:
        authenticator, before = self.authenticator, self._charge
        if before is not None and before.tokens == tokens:
            then(None)
        elif authenticator.shared is not None:
            self._task = spawn(self._take_shared(authenticator.shared, account, tokens, then))
        else:
            clock = authenticator.clock
            now, wall = clock.now(), clock.wall()
            if before is None:
                charge = authenticator.limiter.charge(account, tokens, now, wall)
            else:
                charge = authenticator.limiter.recharge(before, tokens, now, wall)
            then(self._charged(charge))

    async def _taken(self, account: Account, tokens: int) -> None:
        authenticator = self.authenticator
        if authenticator.shared is not None:
            charge = await authenticator.shared.charge(account, tokens)
        else:
            clock = authenticator.clock
            charge = authenticator.limiter.charge(account, tokens, clock.now(), clock.wall())
        refused = self._charged(charge)
        if refused is not None:
            raise Failed(refused)

    async def _take_shared(
        self,
        shared: Shared,
        account: Account,
        tokens: int,
        then: Callable[[Failure | None], None],
    ) -> None:
        before = self._charge
        try:
            if before is None:
                charge = await shared.charge(account, tokens)
            else:
                charge = await shared.recharge(before, tokens)
        except Exception as error:  # the limits are not known, and the client waits for an answer
            report(error)
            then(Failure(Kind.INTERNAL, "the router failed at this request; its log has more"))
            return
        self._task = None
        if self._left:
            shared.settle(charge, 0)
        else:
            then(self._charged(charge))

    def _charged(self, charge: Charge) -> Failure | None:
        before, self._charge = self._charge, charge
        for over in charge.exceeded:
            if before is None or over not in before.exceeded:
                self.authenticator.exceeded(over.limit.name, True)
        meter = charge.refused
        if meter is None:
            return None
        self.authenticator.exceeded(meter.limit.name, False)
        return Failure(
            Kind.LIMITED,
            f"Rate limit exceeded: {_shown(meter.limit)} for this {_who(self.caller)} "
            f"({meter.limit.name}){self._reservation(charge, meter)}; "
            f"try again in {max(ceil(charge.retry_after), 1)} s",
            retry_after=charge.retry_after,
        )

    def _reservation(self, charge: Charge, meter: Meter) -> str:
        """What to change in a request that would fit if it reserved less; nothing where no such
        request would fit."""
        clock = self.authenticator.clock
        left = meter.left(clock.now(), clock.wall()) if meter.kind in _OF_TOKENS else 0
        if not 0 < left < charge.tokens:
            return ""
        return (
            f": this request reserves {charge.tokens} tokens, for its prompt and the longest "
            f"answer it allows ({OUTPUT_UNSAID} where it names no maximum), and {left} are left. "
            "Set num_predict (max_tokens in OpenAI's and Anthropic's APIs) to less"
        )

    def settle(self, record: RequestRecord) -> None:
        """It is over: take back what was reserved too much, or charge what was too little."""
        self._left = True  # what is being charged is given back as soon as it is known
        charge = self._charge
        if charge is None or not charge.held:
            return
        tokens = (record.prompt_tokens or 0) + (record.output_tokens or 0)
        authenticator = self.authenticator
        if authenticator.shared is not None:
            authenticator.shared.settle(charge, tokens)
        else:
            authenticator.limiter.settle(
                charge, tokens, authenticator.clock.now(), authenticator.clock.wall()
            )

    def fields(self) -> bytes:
        """`X-RateLimit-*` with their line ends; nothing where no limit holds."""
        shown = self._standing()
        return b"" if shown is None else _FIELDS % shown

    def headers(self) -> dict[str, str]:
        """The same as fields of a response."""
        shown = self._standing()
        if shown is None:
            return {}
        names = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
        return {name: str(value) for name, value in zip(names, shown, strict=True)}

    def _standing(self) -> tuple[int, int, int] | None:
        """Limit, what is left of it, and when all of it is back."""
        account = self.account
        if account is None:
            return None
        clock = self.authenticator.clock
        now, wall = clock.now(), clock.wall()
        charge = self._charge
        refused = charge.refused if charge is not None else None
        meter = refused or account.tightest(now, wall)
        if meter is None:
            return None
        most, reset = meter.limit.amount, meter.reset(now, wall)
        left = min(meter.left(now, wall), most)
        return most, left, int(wall + reset + 1) if self._dated else ceil(reset)


def _shown(limit: Limit) -> str:
    word = limit.kind.value.replace("_", " ")
    if limit.kind is _CONCURRENT:
        return f"{limit.amount} requests at a time"
    burst = f" (burst {limit.burst})" if limit.kind is _REQUESTS and limit.burst else ""
    return f"{limit.amount} {word}{burst}"


def _who(caller: Caller) -> str:
    return "address" if caller.key is None else "key"

"""Authenticate callers and charge their quotas: the shell around `access`.

`Authenticator.identify` finds the caller of a request by its key. A `Quota` charges the caller's
limits and settles them. Only routers that share their limits have to wait for a charge.
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

_NO_TIERS: Mapping[str, tuple[Limit, ...]] = {}
_KEY_FIELDS: Final = {name: frozenset({name}) for name in (b"authorization", b"x-api-key")}
_ADDRESSES_MAX = 10_000
_FIELDS = b"X-RateLimit-Limit: %d\r\nX-RateLimit-Remaining: %d\r\nX-RateLimit-Reset: %d\r\n"
_REQUESTS: Final = LimitKind.REQUESTS
_CONCURRENT: Final = LimitKind.CONCURRENT
_TOKEN_KINDS: Final = frozenset({LimitKind.TOKENS, LimitKind.DAILY})


class Shared(Protocol):
    """Charges limits that several routers share."""

    async def charge(self, account: Account, tokens: int) -> Charge:
        """Charge one request against the limits shared by all routers. Does not raise."""
        ...

    async def recharge(self, charge: Charge, tokens: int) -> Charge:
        """Replace a charge by one with another token estimate. Does not raise."""
        ...

    def settle(self, charge: Charge, tokens: int) -> None:
        """Settle a finished request with the tokens that it used."""
        ...


class SurfaceQuota:
    """The quota settings of a surface.

    `tiers` has the limits of tiers that the configuration does not mention; with None, tier limits
    do not apply to the surface. `unix_reset` makes `X-RateLimit-Reset` a Unix time instead of
    seconds.
    """

    __slots__ = ("name", "tiers", "unix_reset")

    def __init__(
        self,
        name: str = "",
        tiers: Mapping[str, tuple[Limit, ...]] | None = _NO_TIERS,
        *,
        unix_reset: bool = False,
    ) -> None:
        self.name = name
        self.tiers = tiers
        self.unix_reset = unix_reset


_DEFAULT_QUOTA: Final = SurfaceQuota()


class Authenticator:
    """Authenticates requests and opens the accounts that they are charged to."""

    def __init__(
        self,
        keyring: Keyring,
        policy: AccessPolicy,
        limiter: Limiter,
        clock: Clock,
        *,
        exceeded: Callable[[str, bool], None],
    ) -> None:
        """`exceeded` is called with the name of each limit that a caller reaches, and with whether
        that limit is only observed instead of enforced."""
        self.keyring = keyring
        self._policy = policy
        self.limiter = limiter
        self.clock = clock
        self.exceeded = exceeded
        self.shared: Shared | None = None
        """Charges the limits that routers share; None if they do not share any."""
        self.renew: Callable[[], Awaitable[None]] | None = None
        """Reads the store's keys again; None without a store."""
        self._addresses: dict[str, Caller] = {}

    @property
    def policy(self) -> AccessPolicy:
        """The access policy in force."""
        return self._policy

    def adopt(self, policy: AccessPolicy) -> None:
        """Apply another policy from now on."""
        self._policy = policy
        self._addresses.clear()  # the rights of anonymous callers come from the policy

    def identify(self, incoming: IncomingRequest, *, strict: bool = False) -> Caller:
        """Return the caller of a request.

        If several keys are sent, the first valid one is used. `strict` rejects unknown keys even
        if the configuration does not use keys.

        Raises:
            UnknownKey: the request has a key that this router does not know.
            Failed: the key is revoked or expired, or it is missing although keys are required.
        """
        credentials = incoming.credentials
        policy = self._policy
        if credentials:
            found: Caller | None = None
            refusal: Failure | None = None
            unknown = credentials[0][1]
            for field, key in credentials:
                caller = self.keyring.find(key)
                if caller is None:
                    if not key.startswith(KEY_PREFIX):
                        continue
                    unknown = key  # of several, report the one that has olla's prefix
                hidden = incoming.hidden
                incoming.hidden = (
                    _KEY_FIELDS[field] if hidden is None else hidden | _KEY_FIELDS[field]
                )
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
        self,
        caller: Caller,
        category: str,
        incoming: IncomingRequest,
        surface: SurfaceQuota = _DEFAULT_QUOTA,
    ) -> "Quota":
        """Return the uncharged quota of a caller's request in a category."""
        limits = self._policy.limits(caller, category, surface.tiers, surface.name)
        account = None
        if limits:
            clock = self.clock
            account = self.limiter.account(
                caller.account,
                category + surface.name,
                limits,
                clock.now(),
                clock.wall(),
                self.anonymous(incoming).id if self._policy.per_address else "",
            )
        return Quota(self, caller, account, surface.unix_reset)

    def quota_of_rejected(
        self, incoming: IncomingRequest, category: str, surface: SurfaceQuota = _DEFAULT_QUOTA
    ) -> "Quota":
        """Return the quota of a rejected request: of its key if that is known, else of the client's
        address."""
        known = [caller for _, key in incoming.credentials if (caller := self.keyring.find(key))]
        return self.quota(
            known[0] if known else self.anonymous(incoming), category, incoming, surface
        )

    def anonymous(self, incoming: IncomingRequest) -> Caller:
        """Return the caller by its address alone, ignoring any key."""
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
    """Charges one request of a caller and settles the charge at its end."""

    __slots__ = (
        "_charge",
        "_settled",
        "_task",
        "_unix_reset",
        "account",
        "authenticator",
        "caller",
    )

    def __init__(
        self, authenticator: Authenticator, caller: Caller, account: Account | None, unix: bool
    ) -> None:
        self.caller = caller
        self.account = account
        self.authenticator = authenticator
        self._unix_reset = unix
        self._charge: Charge | None = None
        self._task: asyncio.Task[None] | None = None
        self._settled = False

    def annotate(self, record: RequestRecord) -> None:
        """Write the caller, its tier and the key owner into the record."""
        caller = self.caller
        record.caller = caller.id
        record.tier = caller.tier
        key = caller.key
        if key is not None:
            record.owner = key.owner
            record.key_name = key.name

    def charge(self, features: Features | None, callback: Callable[[Failure | None], None]) -> None:
        """Charge the request, or correct its reservation. Calls `callback` with the rejection or
        None.

        The callback runs at once, unless routers share their limits. `features` describe the
        model request; None if they are not known.
        """
        account = self.account
        if account is None:
            callback(None)
            return
        tokens = 0
        if account.counts_tokens and features is not None:
            tokens = reserve(
                account.limits, features.prompt_tokens, features.prompt_bytes, features.output_max
            )
        self._charge_or_recharge(account, tokens, callback)

    def reserve(self, length: int | None, callback: Callable[[Failure | None], None]) -> None:
        """Charge the request before its body is read, then call back as `charge` does.

        `length` is the body's bytes, None if unknown. `charge` has to follow once the body is read.
        """
        account = self.account
        if account is None:
            callback(None)
        else:
            self._charge_or_recharge(account, self._estimate(account, length), callback)

    async def ensure_reserved(self, length: int | None) -> None:
        """Charge the request before its body is read, unless it was charged already.

        Raises:
            Failed: a limit is reached.
        """
        account = self.account
        if account is not None and self._charge is None:
            await self._charge_async(account, self._estimate(account, length))

    async def ensure_charged(self) -> None:
        """Charge a request that uses no model, unless it was charged already.

        Raises:
            Failed: a limit is reached.
        """
        account = self.account
        if account is not None and self._charge is None:
            await self._charge_async(account, 0)

    def _estimate(self, account: Account, length: int | None) -> int:
        """Return the tokens to reserve for a body that has not been read yet.

        The reservation is capped at the tokens that are left, and is at least one. So the estimate
        alone never rejects a caller that has tokens left.
        """
        if not account.counts_tokens:
            return 0
        clock = self.authenticator.clock
        cap = max(account.tokens_left(clock.now(), clock.wall()), 1)
        return max(min(reserve(account.limits, 0.0, length or 0, 0.0), cap), 1)

    def _charge_or_recharge(
        self, account: Account, tokens: int, callback: Callable[[Failure | None], None]
    ) -> None:
        authenticator, previous = self.authenticator, self._charge
        if previous is not None and previous.tokens == tokens:
            callback(None)
        elif authenticator.shared is not None:
            self._task = spawn(self._charge_shared(authenticator.shared, account, tokens, callback))
        else:
            clock = authenticator.clock
            now, wall = clock.now(), clock.wall()
            if previous is None:
                charge = authenticator.limiter.charge(account, tokens, now, wall)
            else:
                charge = authenticator.limiter.recharge(previous, tokens, now, wall)
            callback(self._apply(charge))

    async def _charge_async(self, account: Account, tokens: int) -> None:
        authenticator = self.authenticator
        if authenticator.shared is not None:
            charge = await authenticator.shared.charge(account, tokens)
        else:
            clock = authenticator.clock
            charge = authenticator.limiter.charge(account, tokens, clock.now(), clock.wall())
        refused = self._apply(charge)
        if refused is not None:
            raise Failed(refused)

    async def _charge_shared(
        self,
        shared: Shared,
        account: Account,
        tokens: int,
        callback: Callable[[Failure | None], None],
    ) -> None:
        previous = self._charge
        try:
            if previous is None:
                charge = await shared.charge(account, tokens)
            else:
                charge = await shared.recharge(previous, tokens)
        except Exception as error:  # the client still waits for an answer
            report(error)
            callback(Failure(Kind.INTERNAL, "the router failed at this request; its log has more"))
            return
        self._task = None
        if self._settled:
            shared.settle(charge, 0)
        else:
            callback(self._apply(charge))

    def _apply(self, charge: Charge) -> Failure | None:
        previous, self._charge = self._charge, charge
        for meter in charge.exceeded:
            if previous is None or meter not in previous.exceeded:
                self.authenticator.exceeded(meter.limit.name, True)
        refusing = charge.refused
        if refusing is None:
            return None
        self.authenticator.exceeded(refusing.limit.name, False)
        return Failure(
            Kind.LIMITED,
            f"Rate limit exceeded: {_describe(refusing.limit)} for this {_credential(self.caller)} "
            f"({refusing.limit.name}){self._reservation_hint(charge, refusing)}; "
            f"try again in {max(ceil(charge.retry_after), 1)} s",
            retry_after=charge.retry_after,
        )

    def _reservation_hint(self, charge: Charge, meter: Meter) -> str:
        """Return advice for a request that would fit if it reserved fewer tokens, else ""."""
        clock = self.authenticator.clock
        left = meter.left(clock.now(), clock.wall()) if meter.kind in _TOKEN_KINDS else 0
        if not 0 < left < charge.tokens:
            return ""
        return (
            f": this request reserves {charge.tokens} tokens for its prompt and the longest answer "
            f"it allows ({OUTPUT_UNSAID} if it sets no maximum), but only {left} are left. "
            "Lower num_predict (max_tokens in OpenAI's and Anthropic's APIs)"
        )

    def settle(self, record: RequestRecord) -> None:
        """Settle the finished request: refund the unused reservation, or charge the excess."""
        self._settled = True  # a shared charge still in progress is refunded when it completes
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
        """Return the `X-RateLimit-*` fields with their line ends; b"" if no limit applies."""
        values = self._tightest()
        return b"" if values is None else _FIELDS % values

    def headers(self) -> dict[str, str]:
        """Return the `X-RateLimit-*` fields as a mapping; empty if no limit applies."""
        values = self._tightest()
        if values is None:
            return {}
        names = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
        return {name: str(value) for name, value in zip(names, values, strict=True)}

    def _tightest(self) -> tuple[int, int, int] | None:
        """Return limit, remaining amount and reset of the tightest limit; None without limits."""
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
        amount, reset = meter.limit.amount, meter.reset(now, wall)
        left = min(meter.left(now, wall), amount)
        return amount, left, int(wall + reset + 1) if self._unix_reset else ceil(reset)


def _describe(limit: Limit) -> str:
    word = limit.kind.value.replace("_", " ")
    if limit.kind is _CONCURRENT:
        return f"{limit.amount} requests at a time"
    burst = f" (burst {limit.burst})" if limit.kind is _REQUESTS and limit.burst else ""
    return f"{limit.amount} {word}{burst}"


def _credential(caller: Caller) -> str:
    return "address" if caller.key is None else "key"

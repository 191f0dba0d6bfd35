"""Wire access control: keys, limits, the store and shared state."""

import os
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from structlog.typing import FilteringBoundLogger

from olla.access.keyring import Keyring
from olla.access.limiter import Limiter
from olla.access.policy import TIERS
from olla.app.access_options import access_policy, makers, static_keys
from olla.app.store_service import StoreService, seed
from olla.clock import Clock
from olla.proxy.auth.authenticate import Authenticator
from olla.settings import Settings
from olla.settings.access import Access, State, StoreSection
from olla.settings.store_url import default_url, exists
from olla.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from olla.state.shared_limits import SharedLimits

__all__ = ["AccessWiring", "store_url"]


def store_url(settings: Settings) -> str:
    """Return the URL of the store."""
    return settings.store.url or default_url(os.environ)


def _needs_store(access: Access) -> bool:
    """Return whether keys or limits are configured; anonymous operations alone need no store."""
    return access.model_copy(update={"anonymous_operations": ()}) != Access(anonymous_operations=())


def _shared_limits(
    state: State, limiter: Limiter, clock: Clock, logger: FilteringBoundLogger
) -> "SharedLimits | None":
    """Create the shared limits; None if no shared state is configured."""
    if state.url is None:
        return None
    from olla.state.shared_limits import SharedLimits  # imported lazily

    name = secrets.token_hex(8)
    return SharedLimits(state.url, limiter, clock, timeout=state.timeout, logger=logger, name=name)


class AccessWiring:
    """Authenticator, keyring, limiter and store of one router."""

    def __init__(
        self, settings: Settings, clock: Clock, logger: FilteringBoundLogger, metrics: Metrics
    ) -> None:
        self._clock = clock
        self.keyring = Keyring()
        self._load_keyring(settings)
        self._limiter = Limiter()
        self.authenticator = Authenticator(
            self.keyring,
            access_policy(settings),
            self._limiter,
            clock,
            exceeded=metrics.limit_exceeded,
        )
        url = store_url(settings)
        configured = _needs_store(settings.access) or settings.store != StoreSection()
        self.store_service = StoreService(
            url,
            self.keyring,
            clock,
            logger,
            open_at_start=configured or exists(url),
            retention=settings.store.usage_retention or None,
            seed_usage=self._seed_usage,
        )
        self.authenticator.renew = self.store_service.reload_keys
        self.shared = _shared_limits(settings.state, self._limiter, clock, logger)
        if self.shared is not None:
            self.shared.on_announced = self.store_service.announced
            self.authenticator.shared = self.store_service.shared = self.shared

    async def start(self) -> None:
        """Connect to shared state and open the store; both are retried if unavailable."""
        if self.shared is not None:
            await self.shared.start()
        await self.store_service.start()

    async def stop(self) -> None:
        """Write the pending usage, and close all connections."""
        if self.shared is not None:
            await self.shared.stop()
        await self.store_service.stop()

    def apply(self, settings: Settings) -> None:
        """Apply new keys and limits. Usage counted so far is kept."""
        self._load_keyring(settings)
        self.authenticator.adopt(access_policy(settings))

    def tiers(self) -> set[str]:
        """Return the names of all tiers."""
        return {*TIERS, *self.authenticator.policy.tiers}

    def metrics(self) -> dict[str, float]:
        """Return the values of metrics, by name."""
        store_service, usage_writer, shared = (
            self.store_service,
            self.store_service.usage_writer,
            self.shared,
        )
        found = {"olla_api_keys": float(len(self.keyring))}
        if usage_writer is not None or store_service.away is not None:
            written, lost, pending = store_service.usage
            found["olla_usage_written_total"] = written
            found["olla_usage_lost_total"] = lost
            found["olla_usage_pending"] = pending
            failing = usage_writer is None or usage_writer.failing is not None
            found["olla_store_up"] = float(store_service.away is None and not failing)
        if shared is not None:
            found["olla_shared_state_up"] = float(shared.up)
            found["olla_shared_state_fallbacks_total"] = shared.fallbacks
        return found

    def _load_keyring(self, settings: Settings) -> None:
        self.keyring.settle(
            static_keys(settings), tiers={*TIERS, *settings.access.tiers}, makers=makers(settings)
        )

    def _seed_usage(self, used: Mapping[str, int]) -> None:
        if self.shared is None:  # shared state already has these counts
            policy, wall = self.authenticator.policy, self._clock.wall()
            seed(self._limiter, self.keyring, lambda each: policy.limits(each, ""), used, wall)

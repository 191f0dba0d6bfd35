"""The store while a router runs: opened when it is needed, its keys in memory, its usage written.

A store that is away stops no inference: keys that are known go on to be taken, usage waits in
bounded memory, and what needs the store itself says 503.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, TypeVar

from structlog.typing import FilteringBoundLogger

from olla.access.caller import ANONYMOUS, Caller
from olla.access.keyring import Keyring
from olla.access.keys import Key
from olla.access.limit import Limit
from olla.access.limiter import DAY, Limiter
from olla.clock import Clock
from olla.failures import Failed, Failure, Kind
from olla.record import RequestRecord
from olla.settings.store_url import SqliteFile, exists, read_url
from olla.store import MakerRevoked, StoreError
from olla.tasks import in_thread, joined, spawn

if TYPE_CHECKING:
    from olla.state.shared_limits import SharedLimits
    from olla.store.database import Store
    from olla.store.usage_writer import UsageWriter

__all__ = ["LOOK_AGAIN", "StoreService", "seed"]

T = TypeVar("T")

LOOK_AGAIN = 1.0
"""Seconds after which a key that another process has made or revoked is noticed, at the latest;
and between two tries to open a store that is away."""
_EARLY_MAX = 1000
"""Requests that are remembered while no store is open; older ones are forgotten."""
_START = 3.0
"""Seconds that a store may take to open, before the router starts without it."""
_WAITING_MAX = 10_000
"""Requests whose usage waits for a store that is away."""
_STOP = 3.0
"""Seconds that the last usage may take to be written."""
_RETRY_AFTER = 2.0


class StoreService:
    """Opens the store, and keeps what is read of it."""

    def __init__(
        self,
        url: str,
        keyring: Keyring,
        clock: Clock,
        logger: FilteringBoundLogger,
        *,
        wanted: bool,
        retention: float | None,
        spent: Callable[[Mapping[str, int]], None],
    ) -> None:
        """`wanted`: it is opened at the start, else when it is first needed; `retention` is how
        many seconds usage is kept, None for ever; `spent` is told which caller has used how many
        tokens today."""
        self.url = url
        self.usage_writer: UsageWriter | None = None
        self.shared: SharedLimits | None = None
        """Tells other routers of keys, where they share their state."""
        self._keyring = keyring
        self._clock = clock
        self._logger = logger
        self._wanted = wanted
        self._retention = retention
        self._spent = spent
        self._store: Store | None = None
        self._file: tuple[int, int] | None = None
        """Which file is open, where it is one."""
        self._file_gone = False
        self._seeded = False
        self._written = 0
        self._revision = -1
        self._early: deque[RequestRecord] = deque(maxlen=_WAITING_MAX if wanted else _EARLY_MAX)
        self._missed = 0
        self._opening = asyncio.Lock()
        self._reading: asyncio.Task[None] | None = None
        self._away: str | None = None
        self._following: asyncio.Task[None] | None = None
        self._existing: asyncio.Future[bool] | None = None

    # --- its life ---------------------------------------------------------------------------

    async def start(self) -> None:
        """Open it if it is wanted now; try again from time to time if it is away."""
        if self._wanted:
            try:
                async with asyncio.timeout(_START):
                    await self.store()
            except TimeoutError:
                self._gone(f"it did not answer within {_START:g} s")
                self._follow()
            except Failed:
                self._follow()

    async def stop(self) -> None:
        """Write what is left, and close it."""
        for task in (self._following, self._reading):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self.usage_writer is not None:
            await self.usage_writer.stop(_STOP)
        if self._store is not None:
            await self._store.close()

    def __call__(self, record: RequestRecord) -> None:
        """Record the usage of a request, of the last before a store is open as well. A sink."""
        if not record.caller:
            return
        if self.usage_writer is not None:
            self.usage_writer(record)
        else:
            record.content = None
            if self._wanted and len(self._early) == _WAITING_MAX:
                self._missed += 1
            self._early.append(record)

    @property
    def usage(self) -> tuple[int, int, int]:
        """How many requests' usage is written, lost, and waiting."""
        usage_writer = self.usage_writer
        if usage_writer is None:
            return self._written, self._missed, len(self._early)
        return (
            self._written + usage_writer.written,
            self._missed + usage_writer.lost,
            usage_writer.pending,
        )

    @property
    def away(self) -> str | None:
        """Why the store cannot be used, None while it can or is not needed."""
        return self._away

    async def store(self) -> "Store":
        """The open store.

        Raises:
            Failed: it cannot be opened.
        """
        if self._store is not None:
            return self._store
        async with self._opening:
            try:
                if self._file_gone and not await self._exists():
                    raise StoreError("its file is gone; put it back, or start anew without it")
                self._file_gone = False
                return self._store or await self._open()
            except StoreError as error:
                raise self._unavailable(error) from None

    async def _open(self) -> "Store":
        # Loaded only where a store is used: it takes a second and 40 MB, and streams should not
        # stand still meanwhile.
        await in_thread(import_module, "olla.store.database")
        from olla.store.database import Store
        from olla.store.usage_writer import UsageWriter

        store = await Store.open(self.url)
        try:
            self._revision = await store.keys.revision()
            self._keyring.renew(await store.keys.every())
            if not self._seeded:  # what this process has seen is counted already
                wall = self._clock.wall()
                self._spent(await store.usage.tokens_since(wall - wall % DAY))
                self._seeded = True
        except BaseException:
            await store.close()
            raise
        self._store = store
        self._file = await in_thread(_file_of, self.url)
        self._back()
        self.usage_writer = UsageWriter(store, self._logger, self._clock, retention=self._retention)
        for record in self._early:
            self.usage_writer(record)
        self._early.clear()
        self.usage_writer.start()
        self._follow()
        self._logger.info("store opened", store=store.url_shown)
        return store

    # --- keys -------------------------------------------------------------------------------

    async def renew(self) -> None:
        """Read the keys again, if any has changed: somebody shows one that is not known.

        Raises:
            Failed: the store is away.
        """
        if self._store is None and not self._wanted:
            try:
                async with asyncio.timeout(_START):
                    if not await self._exists():
                        return  # nobody has made a key
            except TimeoutError:
                raise self._unavailable(StoreError("its disk does not answer")) from None
        await self.store()
        if self._reading is not None and not self._reading.done():
            await asyncio.shield(self._reading)  # has begun before this key was shown
        if self._reading is None or self._reading.done():
            self._reading = spawn(self._read(), joined)
        await asyncio.shield(self._reading)
        if self._away is not None:
            raise self._unavailable(None)

    async def create(self, key: Key) -> Key:
        """Keep a new key.

        Raises:
            Failed: the store is away, or the key that makes it was revoked meanwhile.
        """
        store = await self.store()
        try:
            made = await self._tried(store.keys.create(key))
        except MakerRevoked as error:
            raise Failed(Failure(Kind.KEY_REVOKED, f"{error}, and makes no others")) from None
        await self._read()
        if self.shared is not None:
            await self.shared.announce("keys")
        return made

    async def revoke(
        self, id: str, *, owner: str | None = None, made_by: str | None = None
    ) -> tuple[Key, ...]:
        """Revoke a key (of one owner or maker where one is named), and those that it made. Returns
        it first, then those that were revoked with it; nothing when there is no such key.

        Raises:
            Failed: the store is away.
        """
        store = await self.store()
        wall = self._clock.wall()
        revoked = await self._tried(store.keys.revoke(id, wall, owner=owner, made_by=made_by))
        if revoked:
            # The others follow from it, here and at the routers that hear of it.
            self._keyring.revoke(revoked[0].id)
            if self.shared is not None:
                await self.shared.announce(f"revoked {revoked[0].id}")
        return revoked

    def announced(self, what: str) -> None:
        """Another router has changed keys, or may have."""
        word, _, id = what.partition(" ")
        if word == "revoked" and id:
            self._keyring.revoke(id)
        if self._store is not None and (self._reading is None or self._reading.done()):
            self._reading = spawn(self._read())

    async def tried(self, work: "Callable[[Store], Awaitable[T]]") -> T:
        """What the store answers.

        Raises:
            Failed: it is away.
        """
        return await self._tried(work(await self.store()))

    async def _read(self) -> None:
        store = self._store
        if store is None:
            return
        try:
            revision = await store.keys.revision()
            if revision != self._revision:
                self._keyring.renew(await store.keys.every())
                self._revision = revision
        except StoreError as error:
            self._gone(str(error))
        else:
            self._back()

    async def _tried(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except StoreError as error:
            raise self._unavailable(error) from None

    # --- whether it is there ----------------------------------------------------------------

    def _follow(self) -> None:
        if self._following is None:
            self._following = spawn(self._look_again())

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AGAIN)
            try:
                await self.look()
            except Failed:
                pass
            except Exception as error:
                self._logger.error("the store cannot be opened", exc_info=error)

    async def look(self) -> None:
        """Look after the store: keys that have changed, a file that was replaced or is gone.

        Raises:
            Failed: it cannot be opened.
        """
        store = self._store
        if store is not None:
            found = await in_thread(_file_of, self.url)
            if found == self._file:
                await self._read()
                return
            # What is open now, nobody else sees any more.
            self._logger.warning("the store's file was replaced", gone=found is None)
            self._file_gone = found is None
            self._store = None
            usage_writer, self.usage_writer = self.usage_writer, None
            if usage_writer is not None:
                self._written += usage_writer.written
                self._missed += usage_writer.lost
                left = await usage_writer.leave()
                room = (self._early.maxlen or 0) - len(self._early)
                self._missed += max(len(left) - room, 0)
                self._early.extend(left)
            await store.close()
        await self.store()

    async def _exists(self) -> bool:
        """Whether there is a store to be opened. One look at a time, however many wait for it."""
        if self._existing is None or self._existing.done():
            self._existing = in_thread(exists, self.url)
        return await asyncio.shield(self._existing)

    def _gone(self, reason: str) -> None:
        if self._away is None:
            self._logger.error("the store is away; inference goes on", reason=reason)
        self._away = reason

    def _back(self) -> None:
        if self._away is not None:
            self._logger.info("the store is back")
        self._away = None

    def _unavailable(self, error: StoreError | None) -> Failed:
        if error is not None:
            self._gone(str(error))
        message = "the store of keys and usage cannot be used now; try again shortly"
        return Failed(Failure(Kind.STORE_AWAY, message, retry_after=_RETRY_AFTER))


def _file_of(url: str) -> tuple[int, int] | None:
    """Which file a store is, now; None where it is none, or not there."""
    place = read_url(url)
    if not isinstance(place, SqliteFile):
        return None
    try:
        found = place.path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def seed(
    limiter: Limiter,
    keyring: Keyring,
    limits: Callable[[Caller], tuple[Limit, ...]],
    used: Mapping[str, int],
    wall: float,
) -> None:
    """Tell the limiter what callers have used today, before this process."""
    addresses = [Caller(id, ANONYMOUS, frozenset(), id) for id in used if id.startswith("addr:")]
    for caller in [*keyring.callers(), *addresses]:
        tokens = used.get(caller.id)
        if tokens:
            limiter.spent(caller.account, limits(caller), tokens, wall)

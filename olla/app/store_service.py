"""Manage the store while a router runs: open it on demand, cache its keys, write usage.

An unavailable store does not stop inference: known keys stay valid, usage is buffered in bounded
memory, and requests that need the store get 503.
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

__all__ = ["REFRESH_INTERVAL", "StoreService", "seed"]

T = TypeVar("T")

REFRESH_INTERVAL = 1.0
"""Seconds between two checks of the store: keys that another process created or revoked take
effect within this time, and an unavailable store is opened again after it."""
_BUFFER_MAX = 1000
"""Usage records buffered while no store is needed; older ones are dropped."""
_START = 3.0
"""Seconds that the store may take to open before the router starts without it."""
_PENDING_MAX = 10_000
"""Usage records buffered for an unavailable store."""
_STOP = 3.0
"""Seconds for writing the last usage records at shutdown."""
_RETRY_AFTER = 2.0


class StoreService:
    """Opens the store, caches its keys and writes usage."""

    def __init__(
        self,
        url: str,
        keyring: Keyring,
        clock: Clock,
        logger: FilteringBoundLogger,
        *,
        open_at_start: bool,
        retention: float | None,
        seed_usage: Callable[[Mapping[str, int]], None],
    ) -> None:
        """`open_at_start` opens the store at startup, else it is opened on first use. `retention`
        is how long usage is kept in seconds, None forever. `seed_usage` is called once, with the
        tokens that each caller used today."""
        self.url = url
        self.usage_writer: UsageWriter | None = None
        self.shared: SharedLimits | None = None
        """Announces changes of keys to other routers that share their state."""
        self._keyring = keyring
        self._clock = clock
        self._logger = logger
        self._open_at_start = open_at_start
        self._retention = retention
        self._seed_usage = seed_usage
        self._store: Store | None = None
        self._file: tuple[int, int] | None = None
        """Device and inode of the open SQLite file."""
        self._file_gone = False
        self._seeded = False
        self._written = 0
        self._revision = -1
        self._buffer: deque[RequestRecord] = deque(
            maxlen=_PENDING_MAX if open_at_start else _BUFFER_MAX
        )
        self._lost = 0
        self._opening = asyncio.Lock()
        self._keys_reader: asyncio.Task[None] | None = None
        self._away: str | None = None
        self._refresher: asyncio.Task[None] | None = None
        self._exists_check: asyncio.Future[bool] | None = None

    # --- lifecycle --------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the store if `open_at_start` is set; retry periodically while it is unavailable."""
        if self._open_at_start:
            try:
                async with asyncio.timeout(_START):
                    await self.store()
            except TimeoutError:
                self._mark_unavailable(f"no answer within {_START:g} s")
                self._start_refreshing()
            except Failed:
                self._start_refreshing()

    async def stop(self) -> None:
        """Write the pending usage, and close the store."""
        for task in (self._refresher, self._keys_reader):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self.usage_writer is not None:
            await self.usage_writer.stop(_STOP)
        if self._store is not None:
            await self._store.close()

    def __call__(self, record: RequestRecord) -> None:
        """Record the usage of a request, or buffer it while no store is open. A sink."""
        if not record.caller:
            return
        if self.usage_writer is not None:
            self.usage_writer(record)
        else:
            record.content = None
            if self._open_at_start and len(self._buffer) == _PENDING_MAX:
                self._lost += 1
            self._buffer.append(record)

    @property
    def usage(self) -> tuple[int, int, int]:
        """The numbers of usage records written, lost and pending."""
        usage_writer = self.usage_writer
        if usage_writer is None:
            return self._written, self._lost, len(self._buffer)
        return (
            self._written + usage_writer.written,
            self._lost + usage_writer.lost,
            usage_writer.pending,
        )

    @property
    def away(self) -> str | None:
        """Why the store is unavailable; None while it is available or not needed."""
        return self._away

    async def store(self) -> "Store":
        """Return the open store, and open it if necessary.

        Raises:
            Failed: it cannot be opened.
        """
        if self._store is not None:
            return self._store
        async with self._opening:
            try:
                if self._file_gone and not await self._exists():
                    raise StoreError("its file is missing; restore it, or restart olla without it")
                self._file_gone = False
                return self._store or await self._open()
            except StoreError as error:
                raise self._unavailable(error) from None

    async def _open(self) -> "Store":
        # Imported lazily, because it takes a second and 40 MB; in a thread, so that streams do not
        # stall.
        await in_thread(import_module, "olla.store.database")
        from olla.store.database import Store
        from olla.store.usage_writer import UsageWriter

        store = await Store.open(self.url)
        try:
            self._revision = await store.keys.revision()
            self._keyring.renew(await store.keys.every())
            if not self._seeded:  # later requests of this process are already counted
                wall = self._clock.wall()
                self._seed_usage(await store.usage.tokens_since(wall - wall % DAY))
                self._seeded = True
        except BaseException:
            await store.close()
            raise
        self._store = store
        self._file = await in_thread(_file_of, self.url)
        self._mark_available()
        self.usage_writer = UsageWriter(store, self._logger, self._clock, retention=self._retention)
        for record in self._buffer:
            self.usage_writer(record)
        self._buffer.clear()
        self.usage_writer.start()
        self._start_refreshing()
        self._logger.info("store opened", store=store.url_shown)
        return store

    # --- keys -------------------------------------------------------------------------------

    async def reload_keys(self) -> None:
        """Read the keys again if any has changed, because a request came with an unknown key.

        Raises:
            Failed: the store is unavailable.
        """
        if self._store is None and not self._open_at_start:
            try:
                async with asyncio.timeout(_START):
                    if not await self._exists():
                        return  # no key was ever created
            except TimeoutError:
                raise self._unavailable(StoreError("its disk does not respond")) from None
        await self.store()
        if self._keys_reader is not None and not self._keys_reader.done():
            await asyncio.shield(self._keys_reader)  # began before this key arrived
        if self._keys_reader is None or self._keys_reader.done():
            self._keys_reader = spawn(self._read_keys(), joined)
        await asyncio.shield(self._keys_reader)
        if self._away is not None:
            raise self._unavailable(None)

    async def create(self, key: Key) -> Key:
        """Store a new key.

        Raises:
            Failed: the store is unavailable, or the key that creates it has been revoked.
        """
        store = await self.store()
        try:
            made = await self._tried(store.keys.create(key))
        except MakerRevoked as error:
            raise Failed(Failure(Kind.KEY_REVOKED, f"{error}, so it cannot create keys")) from None
        await self._read_keys()
        if self.shared is not None:
            await self.shared.announce("keys")
        return made

    async def revoke(
        self, id: str, *, owner: str | None = None, made_by: str | None = None
    ) -> tuple[Key, ...]:
        """Revoke a key and all keys that it made, optionally only if it has this owner or maker.

        Returns the key first, then the keys that were revoked with it; empty if there is no such
        key.

        Raises:
            Failed: the store is unavailable.
        """
        store = await self.store()
        wall = self._clock.wall()
        revoked = await self._tried(store.keys.revoke(id, wall, owner=owner, made_by=made_by))
        if revoked:
            # Keyrings revoke the keys that it made, here and on the other routers.
            self._keyring.revoke(revoked[0].id)
            if self.shared is not None:
                await self.shared.announce(f"revoked {revoked[0].id}")
        return revoked

    def announced(self, what: str) -> None:
        """Handle an announcement of another router that keys have changed, or may have."""
        event, _, id = what.partition(" ")
        if event == "revoked" and id:
            self._keyring.revoke(id)
        if self._store is not None and (self._keys_reader is None or self._keys_reader.done()):
            self._keys_reader = spawn(self._read_keys())

    async def tried(self, work: "Callable[[Store], Awaitable[T]]") -> T:
        """Run work on the store and return its result.

        Raises:
            Failed: the store is unavailable.
        """
        return await self._tried(work(await self.store()))

    async def _read_keys(self) -> None:
        store = self._store
        if store is None:
            return
        try:
            revision = await store.keys.revision()
            if revision != self._revision:
                self._keyring.renew(await store.keys.every())
                self._revision = revision
        except StoreError as error:
            self._mark_unavailable(str(error))
        else:
            self._mark_available()

    async def _tried(self, work: Awaitable[T]) -> T:
        try:
            return await work
        except StoreError as error:
            raise self._unavailable(error) from None

    # --- availability -----------------------------------------------------------------------

    def _start_refreshing(self) -> None:
        if self._refresher is None:
            self._refresher = spawn(self._refresh_periodically())

    async def _refresh_periodically(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_INTERVAL)
            try:
                await self.refresh()
            except Failed:
                pass
            except Exception as error:
                self._logger.error("store refresh failed", exc_info=error)

    async def refresh(self) -> None:
        """Check the store: read changed keys, and reopen a file that was replaced or is missing.

        Raises:
            Failed: it cannot be opened.
        """
        store = self._store
        if store is not None:
            found = await in_thread(_file_of, self.url)
            if found == self._file:
                await self._read_keys()
                return
            # The open file is no longer the one that other processes see.
            self._logger.warning("store file replaced", gone=found is None)
            self._file_gone = found is None
            self._store = None
            usage_writer, self.usage_writer = self.usage_writer, None
            if usage_writer is not None:
                self._written += usage_writer.written
                self._lost += usage_writer.lost
                unwritten = await usage_writer.leave()
                free = (self._buffer.maxlen or 0) - len(self._buffer)
                self._lost += max(len(unwritten) - free, 0)
                self._buffer.extend(unwritten)
            await store.close()
        await self.store()

    async def _exists(self) -> bool:
        """Return whether the store exists. Concurrent callers share one check."""
        if self._exists_check is None or self._exists_check.done():
            self._exists_check = in_thread(exists, self.url)
        return await asyncio.shield(self._exists_check)

    def _mark_unavailable(self, reason: str) -> None:
        if self._away is None:
            self._logger.error("store unavailable, inference continues", reason=reason)
        self._away = reason

    def _mark_available(self) -> None:
        if self._away is not None:
            self._logger.info("store available again")
        self._away = None

    def _unavailable(self, error: StoreError | None) -> Failed:
        if error is not None:
            self._mark_unavailable(str(error))
        message = "the store of keys and usage is unavailable; retry shortly"
        return Failed(Failure(Kind.STORE_AWAY, message, retry_after=_RETRY_AFTER))


def _file_of(url: str) -> tuple[int, int] | None:
    """Return device and inode of a SQLite store; None for other stores, or if it is missing."""
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
    """Charge the limiter with the tokens that callers used today before this process started."""
    addresses = [Caller(id, ANONYMOUS, frozenset(), id) for id in used if id.startswith("addr:")]
    for caller in [*keyring.callers(), *addresses]:
        tokens = used.get(caller.id)
        if tokens:
            limiter.spent(caller.account, limits(caller), tokens, wall)

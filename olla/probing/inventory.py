"""Read and store what an endpoint has: models, loaded models and version.

Sends one probe of a kind at a time, shared by all callers. `watch` decides when to probe, and what
a failure means for the endpoint's health.
"""

import asyncio
import enum
from collections.abc import Callable, Mapping, Sequence

from olla.clock import Clock
from olla.fleet.endpoint import EndpointSpec
from olla.fleet.profiles import Profile
from olla.fleet.snapshot import Model, ResidentModel, resident_by_name
from olla.probing.list_parsing import models, printable, resident_models
from olla.probing.probe_client import LIST_MAX, ProbeClient, Reply, Verdict
from olla.probing.slices import Slices
from olla.tasks import joined, spawn

__all__ = ["Inventory", "ProbeKind"]

_VERSION_MAX = 64
"""In characters."""
_NO_MODELS: Mapping[str, Model] = {}
_NO_INSTANCES: Mapping[str, ResidentModel] = {}


class ProbeKind(enum.Enum):
    """The kinds of probes."""

    ALIVE = "alive"
    MODELS = "models"
    RESIDENT = "resident"
    VERSION = "version"


class Inventory:
    """The data of one endpoint, from its own answers.

    The data is empty, and no probe is allowed, before `profile` is set.
    """

    def __init__(
        self,
        spec: EndpointSpec,
        client: ProbeClient,
        clock: Clock,
        slices: Slices,
        changed: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Long lists are parsed in `slices`. `changed` is called after every stored answer,
        `failed` with an internal error in parsing an answer."""
        self._spec = spec
        self._client = client
        self._clock = clock
        self._slices = slices
        self._changed = changed
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._profile: Profile | None = None
        self._in_flight: dict[ProbeKind, asyncio.Task[Reply]] = {}
        self._known_at: dict[ProbeKind, float] = {}
        self._stale: set[ProbeKind] = set()
        """Kinds whose data has changed since the last probe."""
        self.models = _NO_MODELS
        self.models_cut = False
        """Whether the endpoint lists more models than olla reads."""
        self._models_body = b""
        """Body of the last list of models; most lists never change."""
        self.resident_models: Sequence[ResidentModel] = ()
        self.resident = _NO_INSTANCES
        """`resident_models` by each of their names, see `resident_by_name`."""
        self.resident_wall: float | None = None
        self.resident_at: float | None = None
        """When the probe for `resident_models` was sent, in monotonic seconds."""
        self.version: str | None = None

    @property
    def profile(self) -> Profile | None:
        """The type of server; None while it is unknown."""
        return self._profile

    @profile.setter
    def profile(self, profile: Profile) -> None:
        if self._profile is not None and self._profile is not profile:
            # The endpoint now runs another type of server.
            self.models, self.models_cut, self._models_body = _NO_MODELS, False, b""
            self.version = None
            self._store_resident(())
            self._known_at.clear()
        self._profile = profile

    @property
    def models_at(self) -> float | None:
        """Time of the last list of models, in monotonic seconds."""
        return self._known_at.get(ProbeKind.MODELS)

    def mark_stale(self, kind: ProbeKind) -> None:
        """Mark the data as outdated: the next answer must be to a probe sent after this call."""
        self._stale.add(kind)

    def due(self, kind: ProbeKind, max_age: float) -> bool:
        """Return whether the data is older than `max_age` seconds, or marked as stale."""
        at = self._known_at.get(kind)
        return at is None or kind in self._stale or self._clock.now() - at >= max_age

    def is_probing(self, kind: ProbeKind) -> bool:
        """Return whether a probe of this kind is in flight."""
        return kind in self._in_flight

    def forget_resident(self) -> None:
        """Clear the loaded models: a server that went down has none when it comes back."""
        self._store_resident(())
        self.resident_at = None
        self._known_at.pop(ProbeKind.RESIDENT, None)

    async def probe(self, kind: ProbeKind) -> Reply:
        """Send a probe, or wait for the one of this kind that is in flight."""
        reply = await self._join(kind)
        if kind in self._stale and reply.verdict is Verdict.OK:
            # Marked while the probe was in flight: the answer may predate the change.
            reply = await self._join(kind)
        return reply

    async def stop(self) -> None:
        """Cancel all probes in flight."""
        tasks = list(self._in_flight.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- probes -----------------------------------------------------------------------------

    async def _join(self, kind: ProbeKind) -> Reply:
        task = self._in_flight.get(kind)
        if task is None:
            task = spawn(self._send(kind), joined)
            self._in_flight[kind] = task
            task.add_done_callback(lambda _: self._in_flight.pop(kind, None))
        # A cancelled caller must not cancel the probe for the others.
        return await asyncio.shield(task)

    async def _send(self, kind: ProbeKind) -> Reply:
        assert self._profile is not None
        was_stale = kind in self._stale
        self._stale.discard(kind)
        try:
            reply = await self._read(kind, self._profile)
        except Exception as error:
            self._failed(error)
            reply = Reply(Verdict.BROKEN, error=f"internal error while parsing: {error!r}"[:200])
        if reply.verdict is Verdict.OK:
            self._known_at[kind] = self._clock.now()
            if kind is not ProbeKind.ALIVE:
                self._changed()
        elif was_stale:
            self._stale.add(kind)
        return reply

    async def _read(self, kind: ProbeKind, profile: Profile) -> Reply:
        if kind is ProbeKind.MODELS:
            return await self._read_models(profile)
        if kind is ProbeKind.RESIDENT:
            return await self._read_resident(profile)
        if kind is ProbeKind.VERSION:
            return await self._read_version(profile)
        return await self._client.get(self._spec, self._spec.alive_path or profile.alive_path)

    async def _read_models(self, profile: Profile) -> Reply:
        path = self._spec.list_path or profile.list_path
        reply = await self._client.get(self._spec, path, LIST_MAX)
        if reply.verdict is not Verdict.OK or (
            reply.body == self._models_body and self._models_body
        ):
            return reply
        reading = models(reply.body, profile.list_format, self._spec.models, more=reply.more)
        found = await self._slices.run(reading)
        if found is None:
            return _no_list(path)
        self.models, self.models_cut = found.models, found.cut
        self._models_body = reply.body
        self._store_resident(self.resident_models)
        return reply

    async def _read_resident(self, profile: Profile) -> Reply:
        path = profile.resident_path
        if path is None:
            return Reply(Verdict.OK)
        sent_at, sent_wall = self._clock.now(), self._clock.wall()
        reply = await self._client.get(self._spec, path, LIST_MAX)
        if reply.verdict is Verdict.ABSENT:  # old versions of Ollama lack this path
            return Reply(Verdict.OK)
        if reply.verdict is not Verdict.OK:
            return reply
        found = await self._slices.run(resident_models(reply.body, more=reply.more))
        if found is None:
            return _no_list(path)
        self._store_resident(found)
        self.resident_at, self.resident_wall = sent_at, sent_wall
        return reply

    def _store_resident(self, found: Sequence[ResidentModel]) -> None:
        """Store the loaded models."""
        self.resident_models = found
        self.resident = resident_by_name(found, self.models) if found else _NO_INSTANCES

    async def _read_version(self, profile: Profile) -> Reply:
        if profile.version_path is None:
            return Reply(Verdict.OK)
        reply = await self._client.get(self._spec, profile.version_path)
        if reply.verdict not in (Verdict.OK, Verdict.ABSENT):
            return reply
        answer = reply.json() if reply.verdict is Verdict.OK else None
        version = answer.get("version") if answer is not None else None
        self.version = printable(version, _VERSION_MAX) if isinstance(version, str) else None
        # A missing version counts as an answer, so that the next round does not probe it again.
        return Reply(Verdict.OK)


def _no_list(path: str) -> Reply:
    shown = path.partition("?")[0]
    return Reply(Verdict.BROKEN, error=f"GET {shown} did not return a list of models")

"""What one endpoint says it has: its models, what is in memory, its version.

Asks one question of a kind at a time, whoever wants to know, and keeps what was answered. When to
ask, and what a failure means for the endpoint's health, is `watch`'s business.
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

__all__ = ["Inventory", "Question"]

_VERSION_MAX = 64
"""Characters."""
_NO_MODELS: Mapping[str, Model] = {}
_NO_INSTANCES: Mapping[str, ResidentModel] = {}


class Question(enum.Enum):
    """What an endpoint can be asked."""

    ALIVE = "alive"
    MODELS = "models"
    RESIDENT = "resident"
    VERSION = "version"


class Inventory:
    """What is known of one endpoint from its own answers.

    Nothing is known, and nothing may be asked, before `profile` is set.
    """

    def __init__(
        self,
        spec: EndpointSpec,
        asker: ProbeClient,
        clock: Clock,
        slices: Slices,
        changed: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Long lists are read in `slices`. `changed` is called whenever something was answered
        that is kept, `failed` with an error of olla's own in reading an answer."""
        self._spec = spec
        self._asker = asker
        self._clock = clock
        self._slices = slices
        self._changed = changed
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._profile: Profile | None = None
        self._under_way: dict[Question, asyncio.Task[Reply]] = {}
        self._known_at: dict[Question, float] = {}
        self._stale: set[Question] = set()
        """What is known to have changed since it was asked for."""
        self.models = _NO_MODELS
        self.models_cut = False
        """Whether it lists more models than were read."""
        self._listed = b""
        """The list of models as it came last: most never change."""
        self.resident_models: Sequence[ResidentModel] = ()
        self.resident = _NO_INSTANCES
        """`resident_models` under every name of theirs, see `resident_by_name`."""
        self.resident_wall: float | None = None
        self.resident_at: float | None = None
        """When the request was sent that `resident_models` answers (monotonic seconds)."""
        self.version: str | None = None

    @property
    def profile(self) -> Profile | None:
        """What kind of server it is; None while that is not known."""
        return self._profile

    @profile.setter
    def profile(self, profile: Profile) -> None:
        if self._profile is not None and self._profile is not profile:
            # Another kind of server has taken its place.
            self.models, self.models_cut, self._listed = _NO_MODELS, False, b""
            self.version = None
            self._remember(())
            self._known_at.clear()
        self._profile = profile

    @property
    def models_at(self) -> float | None:
        """When its models were told last, in monotonic seconds."""
        return self._known_at.get(Question.MODELS)

    def mark_stale(self, question: Question) -> None:
        """What is known has changed: the next answer must be to a question put after this."""
        self._stale.add(question)

    def due(self, question: Question, max_age: float) -> bool:
        """Whether what is known is older than `max_age` seconds, or known to be wrong."""
        at = self._known_at.get(question)
        return at is None or question in self._stale or self._clock.now() - at >= max_age

    def asking(self, question: Question) -> bool:
        """Whether a question is under way."""
        return question in self._under_way

    def forget_memory(self) -> None:
        """A server that went away has nothing in memory when it comes back."""
        self._remember(())
        self.resident_at = None
        self._known_at.pop(Question.RESIDENT, None)

    async def ask(self, question: Question) -> Reply:
        """Put a question, or wait for the answer to the one that is under way."""
        reply = await self._join(question)
        if question in self._stale and reply.verdict is Verdict.OK:
            # Marked while the question was under way: the answer may be from before the change.
            reply = await self._join(question)
        return reply

    async def stop(self) -> None:
        """Wait for nothing more."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- the questions ----------------------------------------------------------------------

    async def _join(self, question: Question) -> Reply:
        task = self._under_way.get(question)
        if task is None:
            task = spawn(self._put(question), joined)
            self._under_way[question] = task
            task.add_done_callback(lambda _: self._under_way.pop(question, None))
        # Whoever stops waiting must not take the answer from the others.
        return await asyncio.shield(task)

    async def _put(self, question: Question) -> Reply:
        assert self._profile is not None
        was_stale = question in self._stale
        self._stale.discard(question)
        try:
            reply = await self._read(question, self._profile)
        except Exception as error:
            self._failed(error)
            reply = Reply(Verdict.BROKEN, error=f"olla could not read its answer: {error!r}"[:200])
        if reply.verdict is Verdict.OK:
            self._known_at[question] = self._clock.now()
            if question is not Question.ALIVE:
                self._changed()
        elif was_stale:
            self._stale.add(question)
        return reply

    async def _read(self, question: Question, profile: Profile) -> Reply:
        if question is Question.MODELS:
            return await self._read_models(profile)
        if question is Question.RESIDENT:
            return await self._read_resident(profile)
        if question is Question.VERSION:
            return await self._read_version(profile)
        return await self._asker.get(self._spec, self._spec.alive_path or profile.alive_path)

    async def _read_models(self, profile: Profile) -> Reply:
        path = self._spec.list_path or profile.list_path
        reply = await self._asker.get(self._spec, path, LIST_MAX)
        if reply.verdict is not Verdict.OK or (reply.body == self._listed and self._listed):
            return reply
        reading = models(reply.body, profile.list_format, self._spec.models, more=reply.more)
        found = await self._slices.run(reading)
        if found is None:
            return _no_list(path)
        self.models, self.models_cut = found.models, found.cut
        self._listed = reply.body
        self._remember(self.resident_models)
        return reply

    async def _read_resident(self, profile: Profile) -> Reply:
        path = profile.resident_path
        if path is None:
            return Reply(Verdict.OK)
        put_at, put_wall = self._clock.now(), self._clock.wall()
        reply = await self._asker.get(self._spec, path, LIST_MAX)
        if reply.verdict is Verdict.ABSENT:  # an old Ollama does not tell
            return Reply(Verdict.OK)
        if reply.verdict is not Verdict.OK:
            return reply
        found = await self._slices.run(resident_models(reply.body, more=reply.more))
        if found is None:
            return _no_list(path)
        self._remember(found)
        self.resident_at, self.resident_wall = put_at, put_wall
        return reply

    def _remember(self, found: Sequence[ResidentModel]) -> None:
        """These models are in memory, as far as is known."""
        self.resident_models = found
        self.resident = resident_by_name(found, self.models) if found else _NO_INSTANCES

    async def _read_version(self, profile: Profile) -> Reply:
        if profile.version_path is None:
            return Reply(Verdict.OK)
        reply = await self._asker.get(self._spec, profile.version_path)
        if reply.verdict not in (Verdict.OK, Verdict.ABSENT):
            return reply
        answer = reply.json() if reply.verdict is Verdict.OK else None
        version = answer.get("version") if answer is not None else None
        self.version = printable(version, _VERSION_MAX) if isinstance(version, str) else None
        # A server that does not tell need not be asked again in the next round.
        return Reply(Verdict.OK)


def _no_list(path: str) -> Reply:
    shown = path.partition("?")[0]
    return Reply(Verdict.BROKEN, error=f"GET {shown} answered no list of models")

"""A hand-made fleet for the surfaces' tests."""

import json
from collections.abc import Generator
from typing import Any, TypeVar

from olla.fleet.endpoint import EndpointSpec, ModelFilter
from olla.fleet.health import Health
from olla.fleet.profiles import profile_named
from olla.fleet.snapshot import EndpointView, ResidentModel, Snapshot, resident_by_name
from olla.probing.list_parsing import models

T = TypeVar("T")
NEWER = "2026-03-01T12:00:00.123456789+02:00"
OLDER = "2025-01-01T00:00:00Z"


class StillClock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.monotonic = 1000.0
        self.unix = 1_800_000_000.0

    def now(self) -> float:
        return self.monotonic

    def wall(self) -> float:
        return self.unix


class KnownFleet:
    """A snapshot that a test sets, and a record of what was asked to be fresh."""

    def __init__(self) -> None:
        self.snapshot = Snapshot.of(())
        self.refreshed: list[tuple[str, float, float]] = []

    def set(self, *views: EndpointView) -> None:
        self.snapshot = Snapshot.of(views)

    async def refresh(self, what: str, max_age: float, timeout: float) -> Snapshot:
        self.refreshed.append((what, max_age, timeout))
        return self.snapshot


def tag(name: str, modified_at: str = OLDER, **more: Any) -> dict[str, Any]:
    """An entry of `/api/tags`."""
    return {
        "name": name,
        "model": name,
        "modified_at": modified_at,
        "size": 1000,
        "digest": "d" * 64,
        "details": {
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "3B",
            "quantization_level": "Q4_K_M",
        },
        **more,
    }


def loaded(name: str, *, vram: int = 500, expires_at: float | None = None) -> ResidentModel:
    """A resident model with its `/api/ps` entry."""
    entry = {"name": name, "model": name, "size": vram, "size_vram": vram, "context_length": 4096}
    told = json.dumps(entry).encode()
    return ResidentModel(name, "d" * 64, vram, vram, 4096, expires_at, told)


def all_of(work: Generator[None, None, T]) -> T:
    """What work that yields now and then returns."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            found: T = done.value
            return found


def view(
    name: str,
    *entries: dict[str, Any],
    type: str = "ollama",
    health: Health = Health.HEALTHY,
    resident: tuple[ResidentModel, ...] = (),
    **more: Any,
) -> EndpointView:
    """An endpoint with the models of these list entries."""
    profile = profile_named(type) or profile_named("openai-compatible")
    assert profile is not None
    key = "models" if profile.list_format.value == "ollama" else "data"
    body = json.dumps({key: entries}).encode()
    listing = all_of(models(body, profile.list_format, ModelFilter()))
    assert listing is not None
    more.setdefault("profile", profile_named(type))
    more.setdefault("models_at", 999.0)
    return EndpointView(
        spec=EndpointSpec(name, "127.0.0.1", 11434, authority=f"{name}:11434", type=type),
        position=0,
        health=health,
        models=listing.models,
        resident=resident_by_name(resident, listing.models),
        **more,
    )

"""Records and fleets for the telemetry's tests."""

from typing import Any

from olla.fleet.endpoint import EndpointSpec
from olla.fleet.health import Health
from olla.fleet.model_names import canonical
from olla.fleet.profiles import PROFILES
from olla.fleet.snapshot import EndpointView, Model, ResidentModel, Snapshot, resident_by_name
from olla.record import AttemptRecord, RequestRecord


def record(**more: Any) -> RequestRecord:
    """A finished chat that took 2.5 s, with its first byte after 0.25 s."""
    fields: dict[str, Any] = {
        "id": "r-1", "method": "POST", "path": "/api/chat", "client": "192.0.2.7",
        "started": 100.0, "started_wall": 1_700_000_000.25, "first_byte": 100.25, "ended": 102.5,
        "dialect": "ollama", "operation": "chat", "model": "llama3", "streaming": True,
        "endpoint": "gpu-1", "endpoint_type": "ollama", "reason": "model_loaded", "status": 200,
        "bytes_in": 40, "bytes_out": 4000, "prompt_tokens": 12, "output_tokens": 80,
        "attempts": [AttemptRecord("gpu-1", "model_loaded", 100.0, 100.25, 102.5, 200)],
    }  # fmt: skip
    return RequestRecord(**{**fields, **more})


def fleet(*names: str, resident: tuple[ResidentModel, ...] = ()) -> Snapshot:
    """One healthy Ollama, `gpu-1`, that has models of these names, and one that is down."""
    models = {canonical(name): Model(name, "d" * 64) for name in names}
    return Snapshot.of(
        [
            EndpointView(
                EndpointSpec("gpu-1", "127.0.0.1", 1),
                0,
                profile=PROFILES["ollama"],
                health=Health.HEALTHY,
                models=models,
                resident=resident_by_name(resident, models),
                resident_at=0.0,
            ),
            EndpointView(EndpointSpec("gpu-2", "127.0.0.1", 2), 1, health=Health.OFFLINE),
        ]
    )

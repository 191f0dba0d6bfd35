"""Detect the server type of an endpoint with type `auto`."""

from olla.fleet.endpoint import EndpointSpec
from olla.fleet.profiles import PROFILES, ListFormat, Profile
from olla.probing.list_parsing import first_entries
from olla.probing.probe_client import ProbeClient, Reply, Verdict

__all__ = ["detect"]

_BY_OWNER = {
    "llamacpp": "llamacpp",
    "vllm": "vllm",
    "sglang": "sglang",
    "lmdeploy": "lmdeploy",
    "lemonade": "lemonade",
    "organization_owner": "lm-studio",
}
"""Value of `owned_by` -> profile."""

_LOOKED_AT_MAX = 64
"""Entries of a list that are searched for an owner."""
_NO_ANSWER = (Verdict.TIMEOUT, Verdict.UNREACHABLE, Verdict.RATE_LIMITED)
"""After these, another probe would give no more information. An Ollama that is late with one answer
must not be detected as another type because the next one is on time."""


async def detect(client: ProbeClient, spec: EndpointSpec) -> tuple[Profile | None, Reply]:
    """Return the detected profile, or None, with the reply that decided it."""
    version = await client.get(spec, "/api/version")
    if version.verdict in _NO_ANSWER:
        return None, version
    if version.verdict is Verdict.OK and isinstance(_field(version, "version"), str):
        alive = await client.get(spec, "/")
        if alive.verdict in _NO_ANSWER:
            return None, alive
        if b"Ollama is running" in alive.body:
            return PROFILES["ollama"], alive
    listed = await client.get(spec, spec.list_path or "/v1/models")
    if "llama.cpp" in listed.server or listed.verdict is Verdict.LOADING:
        return PROFILES["llamacpp"], listed
    if listed.verdict is Verdict.ABSENT:
        found = await _by_native_list(client, spec)
        return (found, listed) if found is not None else (None, _unknown())
    if listed.verdict is not Verdict.OK:
        return None, listed
    entries = first_entries(listed.body, ListFormat.OPENAI, _LOOKED_AT_MAX)
    if entries is None:
        return None, _unknown()
    for entry in entries:
        owner = entry.get("owned_by")
        if owner in _BY_OWNER:
            return PROFILES[_BY_OWNER[owner]], listed
    found = None if entries else await _by_native_list(client, spec)
    return found or PROFILES["openai-compatible"], listed


async def _by_native_list(client: ProbeClient, spec: EndpointSpec) -> Profile | None:
    """Detect LM Studio or Lemonade by the native list: the same path, different formats."""
    listed = await client.get(spec, "/api/v1/models")
    if listed.verdict is not Verdict.OK:
        return None
    if first_entries(listed.body, ListFormat.OLLAMA, 1) is not None:
        return PROFILES["lm-studio"]
    found = first_entries(listed.body, ListFormat.OPENAI, 1)
    return PROFILES["lemonade"] if found is not None else None


def _field(reply: Reply, name: str) -> object:
    answer = reply.json()
    return None if answer is None else answer.get(name)


def _unknown() -> Reply:
    return Reply(Verdict.BROKEN, error="unknown server type; set type for this endpoint")

"""Finding out what kind of server an endpoint of type `auto` is."""

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
"""What a server writes into `owned_by`, and the profile that gives it away."""

_LOOKED_AT_MAX = 64
"""Entries of a list in which an owner is looked for."""
_NO_ANSWER = (Verdict.TIMEOUT, Verdict.UNREACHABLE, Verdict.RATE_LIMITED)
"""Asking something else would tell no more; and an Ollama that is late with one answer must not be
taken for another kind because it is in time with the next."""


async def detect(asker: ProbeClient, spec: EndpointSpec) -> tuple[Profile | None, Reply]:
    """Its profile; None with the reply that says why it cannot be told."""
    version = await asker.get(spec, "/api/version")
    if version.verdict in _NO_ANSWER:
        return None, version
    if version.verdict is Verdict.OK and isinstance(_field(version, "version"), str):
        alive = await asker.get(spec, "/")
        if alive.verdict in _NO_ANSWER:
            return None, alive
        if b"Ollama is running" in alive.body:
            return PROFILES["ollama"], alive
    listed = await asker.get(spec, spec.list_path or "/v1/models")
    if "llama.cpp" in listed.server or listed.verdict is Verdict.LOADING:
        return PROFILES["llamacpp"], listed
    if listed.verdict is Verdict.ABSENT:
        found = await _by_own_list(asker, spec)
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
    found = None if entries else await _by_own_list(asker, spec)
    return found or PROFILES["openai-compatible"], listed


async def _by_own_list(asker: ProbeClient, spec: EndpointSpec) -> Profile | None:
    """LM Studio and Lemonade have a list of their own at one path, in different shapes."""
    own = await asker.get(spec, "/api/v1/models")
    if own.verdict is not Verdict.OK:
        return None
    if first_entries(own.body, ListFormat.OLLAMA, 1) is not None:
        return PROFILES["lm-studio"]
    found = first_entries(own.body, ListFormat.OPENAI, 1)
    return PROFILES["lemonade"] if found is not None else None


def _field(reply: Reply, name: str) -> object:
    answer = reply.json()
    return None if answer is None else answer.get(name)


def _unknown() -> Reply:
    return Reply(Verdict.BROKEN, error="its kind cannot be told; set the endpoint's type")

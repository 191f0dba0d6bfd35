"""Finding out what kind of server an endpoint of type `auto` is."""

from olla.fleet.endpoint import EndpointSpec
from olla.fleet.profiles import PROFILES, Profile
from olla.probing.asking import Asker, Reply, Verdict

__all__ = ["detect"]

_BY_OWNER = {"llamacpp": "llamacpp", "vllm": "vllm", "sglang": "sglang", "lmdeploy": "lmdeploy"}
_SPEAKS = (Verdict.OK, Verdict.ABSENT, Verdict.LOADING)


async def detect(asker: Asker, spec: EndpointSpec) -> tuple[Profile | None, Reply]:
    """Its profile; None with the reply that says why it cannot be told."""
    version = await asker.get(spec, "/api/version")
    if version.verdict not in _SPEAKS:
        return None, version
    answer = version.json()
    if version.verdict is Verdict.OK and answer is not None and "version" in answer:
        alive = await asker.get(spec, "/")
        if b"Ollama" in alive.body:
            return PROFILES["ollama"], alive
    listed = await asker.get(spec, "/v1/models")
    if "llama.cpp" in listed.server or listed.verdict is Verdict.LOADING:
        return PROFILES["llamacpp"], listed
    if listed.verdict is not Verdict.OK:
        return None, listed
    answer = listed.json()
    entries = answer.get("data") if answer is not None else None
    if not isinstance(entries, list):
        return None, Reply(Verdict.BROKEN, error="its kind cannot be told; set the endpoint's type")
    for entry in entries:
        owner = entry.get("owned_by") if isinstance(entry, dict) else None
        if owner in _BY_OWNER:
            return PROFILES[_BY_OWNER[owner]], listed
        if owner == "organization_owner":
            return PROFILES["lm-studio"], listed
    return PROFILES["openai-compatible"], listed

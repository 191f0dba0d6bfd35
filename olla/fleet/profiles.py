"""Kinds of inference server: what each speaks, and where it tells about itself.

One row a kind. Path prefixes (`/olla/{type}/…`), probing and list merging all read this table,
so a new kind of server is one more row.
"""

import enum

import msgspec

__all__ = ["ALIASES", "AUTO", "PROFILES", "ListFormat", "Profile", "profile_named"]

AUTO = "auto"
"""The type that is detected by probing."""


class ListFormat(enum.Enum):
    """The format in which a server lists its models."""

    OLLAMA = "ollama"
    """`{"models": [{"name", "digest", "size", …}]}`"""
    OPENAI = "openai"
    """`{"object": "list", "data": [{"id", …}]}`"""


class Profile(msgspec.Struct, frozen=True):
    """One kind of server.

    `alive_path` responds quickly at any load. `list_path` lists the models on disk,
    `resident_path`, if any, the loaded ones. `dialects` are the wire formats that it speaks,
    `prefixes` the path prefixes under `/olla/` that lead to it.
    """

    name: str
    dialects: frozenset[str]
    alive_path: str = "/v1/models"
    list_path: str = "/v1/models"
    list_format: ListFormat = ListFormat.OPENAI
    resident_path: str | None = None
    version_path: str | None = None
    prefixes: tuple[str, ...] = ()

    @property
    def tells_residency(self) -> bool:
        """Whether its loaded models can be known."""
        return self.resident_path is not None


_OPENAI = frozenset({"openai"})
_OPENAI_ANTHROPIC = frozenset({"openai", "anthropic"})

_ROWS = [
    Profile(
        "ollama",
        dialects=frozenset({"ollama", "openai", "anthropic"}),
        alive_path="/",
        list_path="/api/tags",
        list_format=ListFormat.OLLAMA,
        resident_path="/api/ps",
        version_path="/api/version",
        prefixes=("ollama",),
    ),
    Profile(
        "llamacpp",
        _OPENAI_ANTHROPIC,
        alive_path="/health",
        prefixes=("llamacpp", "llama-cpp", "llama.cpp"),
    ),
    Profile(
        "vllm", _OPENAI_ANTHROPIC, alive_path="/health", version_path="/version", prefixes=("vllm",)
    ),
    Profile("vllm-mlx", _OPENAI_ANTHROPIC, prefixes=("vllm-mlx",)),
    Profile("sglang", _OPENAI, alive_path="/health", prefixes=("sglang",)),
    Profile("lmdeploy", _OPENAI, alive_path="/health", prefixes=("lmdeploy",)),
    Profile("lm-studio", _OPENAI_ANTHROPIC, prefixes=("lm-studio", "lmstudio", "lm_studio", "lm")),
    Profile(
        "lemonade",
        _OPENAI,
        alive_path="/api/v1/health",
        list_path="/api/v1/models",
        prefixes=("lemonade",),
    ),
    Profile("litellm", _OPENAI_ANTHROPIC, alive_path="/health/liveliness", prefixes=("litellm",)),
    Profile(
        "docker-model-runner",
        _OPENAI,
        alive_path="/engines/v1/models",
        list_path="/engines/v1/models",
        prefixes=("dmr", "docker-model-runner"),
    ),
    Profile("omlx", _OPENAI_ANTHROPIC, prefixes=("omlx",)),
    Profile("openai-compatible", _OPENAI, prefixes=("openai-compatible",)),
]

PROFILES: dict[str, Profile] = {row.name: row for row in _ROWS}

ALIASES: dict[str, str] = {
    "openai": "openai-compatible",
    "openai_compatible": "openai-compatible",
    "llama.cpp": "llamacpp",
    "llama-cpp": "llamacpp",
    "lmstudio": "lm-studio",
    "lm_studio": "lm-studio",
    "dmr": "docker-model-runner",
}
"""Other spellings of types, found in real files."""


def profile_named(name: str) -> Profile | None:
    """Return the profile of a name or alias; None if it does not exist."""
    key = name.strip().lower()
    return PROFILES.get(ALIASES.get(key, key))

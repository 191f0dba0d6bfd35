"""List the models that a simulated node may have, with real names, sizes and families."""

import hashlib

import msgspec

__all__ = ["CATALOGUE", "ModelSpec", "full_name", "model_spec"]

_GB = 1_000_000_000
_PARAMETER_UNITS = {"M": 1e6, "B": 1e9}


class ModelSpec(msgspec.Struct, frozen=True):
    """A model on disk. `size` is bytes, `context` the longest context in tokens.

    `digest` identifies the weights: two names with one digest are one model in memory.
    `embedding_length` is how many numbers a vector of it has.
    """

    name: str
    size: int
    family: str = "llama"
    parameter_size: str = "7B"
    quantization: str = "Q4_0"
    context: int = 8192
    embedding: bool = False
    vision: bool = False
    embedding_length: int = 4096
    digest: str = ""

    @property
    def parameters(self) -> int:
        """How many weights it has, from `parameter_size`; 0 where that does not say."""
        number, unit = self.parameter_size[:-1], self.parameter_size[-1:]
        try:
            return round(float(number) * _PARAMETER_UNITS[unit])
        except (ValueError, KeyError):
            return 0

    @property
    def capabilities(self) -> list[str]:
        """What it can do, in the words of Ollama's lists."""
        if self.embedding:
            return ["embedding"]
        return ["completion", "tools", *(["vision"] if self.vision else [])]


def full_name(name: str) -> str:
    """The name with its tag, as Ollama shows it."""
    name = name.strip()
    for default in ("registry.ollama.ai/library/", "library/"):
        if name.lower().startswith(default):
            name = name[len(default) :]
    last = name.rsplit("/", 1)[-1]
    return name if ":" in last else f"{name}:latest"


def model_spec(name: str) -> ModelSpec:
    """A model by name: from the catalogue, or made up with the size of a small one."""
    name = full_name(name)
    known = CATALOGUE.get(name)
    if known is not None:
        return known
    return _with_digest(ModelSpec(name, 2 * _GB, parameter_size="3B"))


def _with_digest(spec: ModelSpec) -> ModelSpec:
    digest = hashlib.sha256(f"weights of {spec.name}".encode()).hexdigest()
    return msgspec.structs.replace(spec, digest=digest)


_ROWS = [
    ModelSpec(
        "llama3.2:latest", 2_019_393_189, "llama", "3.2B", "Q4_K_M", 131072, embedding_length=3072
    ),
    ModelSpec("llama3.2:1b", 1_321_098_329, "llama", "1.2B", "Q8_0", 131072, embedding_length=2048),
    ModelSpec("llama2:latest", 3_826_793_677, "llama", "7B", "Q4_0", 4096),
    ModelSpec("llama2:7b", 3_826_793_677, "llama", "7B", "Q4_0", 4096),
    ModelSpec("llama2:13b", 7_366_821_294, "llama", "13B", "Q4_0", 4096, embedding_length=5120),
    ModelSpec("mistral:latest", 4_113_301_824, "llama", "7.2B", "Q4_0", 32768),
    ModelSpec("codellama:latest", 3_825_910_662, "llama", "7B", "Q4_0", 16384),
    ModelSpec("codellama:7b", 3_825_910_662, "llama", "7B", "Q4_0", 16384),
    ModelSpec("codellama:7b-code", 3_825_898_144, "llama", "7B", "Q4_0", 16384),
    ModelSpec("qwen2.5:7b", 4_683_087_332, "qwen2", "7.6B", "Q4_K_M", 32768, embedding_length=3584),
    ModelSpec("gemma2:27b", 15_628_387_458, "gemma2", "27.2B", "Q4_0", 8192, embedding_length=4608),
    ModelSpec(
        "deepseek-r1:14b", 8_988_112_040, "qwen2", "14.8B", "Q4_K_M", 131072, embedding_length=5120
    ),
    ModelSpec(
        "llama3.1:70b", 42_520_398_873, "llama", "70.6B", "Q4_K_M", 131072, embedding_length=8192
    ),
    ModelSpec("llava:latest", 4_733_363_377, "llama", "7B", "Q4_0", 32768, vision=True),
    ModelSpec("smollm:latest", 990_731_000, "llama", "1.7B", "Q4_0", 2048, embedding_length=2048),
    ModelSpec(
        "nomic-embed-text:latest",
        274_302_450,
        "nomic-bert",
        "137M",
        "F16",
        2048,
        embedding=True,
        embedding_length=768,
    ),
]

CATALOGUE: dict[str, ModelSpec] = {row.name: _with_digest(row) for row in _ROWS}
# `llama2` and `llama2:7b` are one file under two names, as in the real library.
for _alias, _name in (("llama2:7b", "llama2:latest"), ("codellama:7b", "codellama:latest")):
    CATALOGUE[_alias] = msgspec.structs.replace(CATALOGUE[_alias], digest=CATALOGUE[_name].digest)

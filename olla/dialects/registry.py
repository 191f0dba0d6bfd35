"""All wire formats by name."""

from collections.abc import Mapping
from types import MappingProxyType

from olla.dialects.anthropic import Anthropic
from olla.dialects.dialect import Dialect
from olla.dialects.internal import InternalDialect
from olla.dialects.ollama import Ollama
from olla.dialects.openai import OpenAI

__all__ = ["DIALECTS"]

_ALL: tuple[Dialect, ...] = (Ollama(), OpenAI(), Anthropic(), InternalDialect())

DIALECTS: Mapping[str, Dialect] = MappingProxyType({each.name: each for each in _ALL})

"""Which requests can be translated, and by which codecs."""

from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from olla.dialects.dialect import Operation
from olla.translation.anthropic_answers import AnthropicStreamWriter, AnthropicWholeWriter
from olla.translation.anthropic_requests import read_request
from olla.translation.codec import AnswerWriter, Reply
from olla.translation.conversation import Conversation
from olla.translation.ollama_answers import OllamaStreamWriter, OllamaWholeWriter
from olla.translation.ollama_requests import read_chat, read_generate

__all__ = ["Plan", "plan_for"]


class Plan(msgspec.Struct, frozen=True):
    """How requests of one operation of a client's dialect are translated for OpenAI chat servers.

    `read` raises `Unsupported`.
    """

    read: Callable[[bytes], Conversation]
    stream: Callable[[Reply], AnswerWriter]
    whole: Callable[[Reply], AnswerWriter]


_PLANS: Final = {
    ("anthropic", Operation.MESSAGES): Plan(
        read_request, AnthropicStreamWriter, AnthropicWholeWriter
    ),
    ("ollama", Operation.CHAT): Plan(read_chat, OllamaStreamWriter, OllamaWholeWriter),
    ("ollama", Operation.GENERATE): Plan(
        read_generate,
        partial(OllamaStreamWriter, chat=False),
        partial(OllamaWholeWriter, chat=False),
    ),
}


def plan_for(dialect: str, operation: Operation) -> Plan | None:
    """How an operation is translated; None if it is not."""
    return _PLANS.get((dialect, operation))

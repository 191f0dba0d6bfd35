"""List what servers of OpenAI's chat format accept, one row per kind of server.

Measured or read in the servers' sources: vLLM `entrypoints/openai/chat_completion/protocol.py`,
llama.cpp `tools/server/server-chat.cpp` and `server-task.cpp`, Ollama `openai/openai.go`.
"""

import enum
from collections.abc import Mapping
from typing import Final

import msgspec

from olla.translation.conversation import Effort

__all__ = ["SERVERS", "ChatServer", "ThinkingSwitch", "server_named"]


class ThinkingSwitch(enum.Enum):
    """The way to switch a model's thinking on and off."""

    EFFORT = "effort"
    """`reasoning_effort`, with `none` for no thinking."""
    TEMPLATE = "template"
    """`chat_template_kwargs`: `enable_thinking` (a boolean) and `reasoning_effort`."""
    LEVEL = "level"
    """`reasoning_effort` without a word for no thinking: the answer's reasoning is withheld."""


class ChatServer(msgspec.Struct, frozen=True):
    """What a kind of server accepts.

    `tool_choice`: the field at all; `named_choice`: an object in it, else `required` and only that
    tool are sent. `parallel_calls`: it takes `parallel_tool_calls`. `output_limit`: the field for
    the limit of the output. `sampling`: the server's names of what OpenAI does not have.
    `efforts`: its scale, to which others are clamped. `budget`: the field for tokens of thinking.
    `fetches_images`: it fetches images by URL. `prefill`: fields that go with an assistant message
    at the end. `logprobs_with_tools`: a stream may have both.
    """

    name: str
    tool_choice: bool = True
    named_choice: bool = True
    parallel_calls: bool = True
    output_limit: str = "max_tokens"
    sampling: Mapping[str, str] = {}
    thinking: ThinkingSwitch = ThinkingSwitch.EFFORT
    efforts: tuple[Effort, ...] = (Effort.LOW, Effort.MEDIUM, Effort.HIGH)
    budget: str | None = None
    fetches_images: bool = True
    prefill: Mapping[str, bool] = {}
    logprobs_with_tools: bool = True


_VLLM: Final = ChatServer(
    "vllm",
    output_limit="max_completion_tokens",
    sampling={"top_k": "top_k", "min_p": "min_p", "repeat_penalty": "repetition_penalty"},
    efforts=tuple(Effort),
    budget="thinking_token_budget",
    prefill={"continue_final_message": True, "add_generation_prompt": False},
)
_LLAMACPP: Final = ChatServer(
    "llamacpp",
    named_choice=False,
    sampling={
        "top_k": "top_k",
        "min_p": "min_p",
        "repeat_penalty": "repeat_penalty",
        "typical_p": "typical_p",
        "repeat_last_n": "repeat_last_n",
        "num_keep": "n_keep",
        "mirostat": "mirostat",
        "mirostat_tau": "mirostat_tau",
        "mirostat_eta": "mirostat_eta",
    },
    thinking=ThinkingSwitch.TEMPLATE,
    budget="thinking_budget_tokens",
    logprobs_with_tools=False,
)
_OLLAMA: Final = ChatServer(
    "ollama",
    tool_choice=False,
    named_choice=False,
    parallel_calls=False,
    efforts=(Effort.MINIMAL, Effort.LOW, Effort.MEDIUM, Effort.HIGH, Effort.MAX),
    fetches_images=False,
)
_LM_STUDIO: Final = ChatServer(
    "lm-studio",
    named_choice=False,
    sampling={"top_k": "top_k", "min_p": "min_p", "repeat_penalty": "repeat_penalty"},
    thinking=ThinkingSwitch.LEVEL,
    fetches_images=False,
)
_OTHER: Final = ChatServer("openai-compatible", thinking=ThinkingSwitch.LEVEL)

SERVERS: Final = {each.name: each for each in (_VLLM, _LLAMACPP, _OLLAMA, _LM_STUDIO, _OTHER)}
"""By the type of an endpoint."""


def server_named(kind: str) -> ChatServer:
    """Return what endpoints of a type accept. Types without a row accept what OpenAI documents."""
    return SERVERS.get(kind, _OTHER)

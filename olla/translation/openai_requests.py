"""Write chat requests for servers of OpenAI's format.

`servers` lists what each kind of server accepts. Reference: OpenAI's API, "Create chat completion".
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from olla.translation.conversation import (
    Conversation,
    Effort,
    Image,
    Message,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolChoice,
    ToolResult,
    Unsupported,
)
from olla.translation.servers import ChatServer, ThinkingSwitch

__all__ = ["PARAGRAPH", "Written", "write_request"]

PARAGRAPH: Final = "\n\n"
"""Joins the texts of one message where a server takes only one. Never changes: prompt caches depend
on it."""
_ERROR: Final = "Error: "
_EFFORTS: Final = tuple(Effort)
_SAME_NAMES: Final = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "seed")


class Written(msgspec.Struct, frozen=True):
    """A request for a server, and the names of the fields that it takes no notice of."""

    body: bytes
    dropped: tuple[str, ...] = ()


def write_request(conversation: Conversation, model: str, server: ChatServer) -> Written:
    """The body for a server's `/v1/chat/completions`. `model` is the server's own name for it.

    Raises:
        Unsupported: the server cannot do what the request asks for.
    """
    dropped = list(conversation.dropped)
    body: dict[str, Any] = {"model": model, "messages": _messages(conversation.messages, server)}
    body |= _tools(conversation, server, dropped)
    if conversation.output_max is not None:
        body[server.output_limit] = conversation.output_max
    if conversation.stop:
        body["stop"] = conversation.stop
    body |= _sampling(conversation, server, dropped)
    body |= _output_format(conversation)
    body |= _reasoning(conversation, server, dropped)
    if conversation.logprobs:
        if conversation.stream and conversation.tools and not server.logprobs_with_tools:
            dropped.append("logprobs")
        else:
            body["logprobs"] = True
            if conversation.top_logprobs is not None:
                body["top_logprobs"] = conversation.top_logprobs
    if conversation.messages and conversation.messages[-1].role is Role.ASSISTANT:
        body |= server.prefill
    if conversation.load_options:
        dropped += [f"options.{name}" for name in conversation.load_options]
    if conversation.keep_alive is not None:
        dropped.append("keep_alive")
    if conversation.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return Written(msgspec.json.encode(body), tuple(dropped))


def _messages(messages: Sequence[Message], server: ChatServer) -> list[dict[str, Any]]:
    """The messages in OpenAI's form.

    Images in tool results go into the user's message that follows the results: a tool message
    holds only text.
    """
    found: list[dict[str, Any]] = []
    images: list[Image] = []
    for at, message in enumerate(messages):
        if images and message.role not in (Role.TOOL, Role.USER):
            found.append(_user((), images, server, at))
            images = []
        match message.role:
            case Role.SYSTEM:
                found.append({"role": "system", "content": _text(message.parts)})
            case Role.USER:
                found.append(_user(message.parts, images, server, at))
                images = []
            case Role.ASSISTANT:
                found.append(_assistant(message))
            case Role.TOOL:
                for part in message.parts:
                    if isinstance(part, ToolResult):
                        found.append(_tool_message(part))
                        images += [each for each in part.content if isinstance(each, Image)]
    if images:
        found.append(_user((), images, server, len(messages)))
    return found


def _text(parts: Iterable[object]) -> str:
    return PARAGRAPH.join(part.text for part in parts if isinstance(part, Text))


def _user(
    parts: Sequence[object], images: Sequence[Image], server: ChatServer, at: int
) -> dict[str, Any]:
    if not images and all(isinstance(part, Text) for part in parts):
        return {"role": "user", "content": _text(parts)}
    content: list[dict[str, Any]] = []
    for part in (*images, *parts):
        if isinstance(part, Image):
            content.append({"type": "image_url", "image_url": {"url": _url(part, server, at)}})
        elif isinstance(part, Text):
            content.append({"type": "text", "text": part.text})
    return {"role": "user", "content": content}


def _url(image: Image, server: ChatServer, at: int) -> str:
    if image.data:
        return f"data:{image.media_type};base64,{image.data}"
    if not server.fetches_images:
        raise Unsupported(
            f"messages[{at}].content",
            "no server of this model fetches images by URL; send the image as base64",
        )
    return image.url


def _assistant(message: Message) -> dict[str, Any]:
    """An assistant message. Its content is never null: some templates fail on it."""
    found: dict[str, Any] = {"role": "assistant", "content": _text(message.parts)}
    thinking = PARAGRAPH.join(part.text for part in message.parts if isinstance(part, Thinking))
    if thinking:
        # Servers differ in the name they read, and ignore the other.
        found["reasoning"] = thinking
        found["reasoning_content"] = thinking
    calls = [
        {
            "id": part.id,
            "type": "function",
            "function": {"name": part.name, "arguments": part.arguments},
        }
        for part in message.parts
        if isinstance(part, ToolCall)
    ]
    if calls:
        found["tool_calls"] = calls
    return found


def _tool_message(result: ToolResult) -> dict[str, Any]:
    text = "\n".join(part.text for part in result.content if isinstance(part, Text))
    if result.is_error and not text.startswith(_ERROR):
        text = _ERROR + text
    return {"role": "tool", "tool_call_id": result.call_id, "content": text}


def _tools(conversation: Conversation, server: ChatServer, dropped: list[str]) -> dict[str, Any]:
    """`tools` and what belongs to it; nothing without tools: vLLM rejects an empty list."""
    tools, choice = conversation.tools, conversation.tool_choice
    if not tools:
        return {}
    found: dict[str, Any] = {}
    forced: object = None
    match choice:
        case ToolChoice.AUTO:
            pass
        case ToolChoice.NONE:
            if not server.tool_choice:
                return {}
            forced = "none"
        case ToolChoice.REQUIRED:
            forced = "required"
        case ToolChoice.NAMED:
            named = tuple(tool for tool in tools if tool.name == conversation.forced_tool)
            if not named:
                raise Unsupported("tool_choice", f"no tool is named '{conversation.forced_tool}'")
            if server.named_choice:
                forced = {"type": "function", "function": {"name": conversation.forced_tool}}
            else:
                tools, forced = named, "required"
    found["tools"] = [_tool(tool) for tool in tools]
    if forced is not None:
        if server.tool_choice:
            found["tool_choice"] = forced
        else:
            dropped.append("tool_choice")
    if server.parallel_calls:
        # Older builds of llama.cpp default to one call at a time.
        found["parallel_tool_calls"] = conversation.parallel_calls is not False
    elif conversation.parallel_calls is False:
        dropped.append("parallel_tool_calls")
    return found


def _tool(tool: Any) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        function["description"] = tool.description
    function["parameters"] = tool.parameters
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _sampling(conversation: Conversation, server: ChatServer, dropped: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in conversation.sampling.__struct_fields__:
        value = getattr(conversation.sampling, name)
        if value is None:
            continue
        theirs = name if name in _SAME_NAMES or name == "logit_bias" else server.sampling.get(name)
        if theirs is None:
            dropped.append(name)
        else:
            found[theirs] = value
    return found


def _output_format(conversation: Conversation) -> dict[str, Any]:
    wanted = conversation.output_format
    if wanted is None:
        return {}
    if wanted.schema is None:
        return {"response_format": {"type": "json_object"}}
    schema: dict[str, Any] = {"name": wanted.name or "output", "schema": wanted.schema}
    if wanted.strict is not None:
        schema["strict"] = wanted.strict
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _reasoning(
    conversation: Conversation, server: ChatServer, dropped: list[str]
) -> dict[str, Any]:
    wanted = conversation.reasoning
    found: dict[str, Any] = {}
    effort = None if wanted.effort is None else _clamped(wanted.effort, server.efforts).value
    match server.thinking:
        case ThinkingSwitch.EFFORT:
            if wanted.enabled is False:
                effort = "none"
            if effort is not None:
                found["reasoning_effort"] = effort
        case ThinkingSwitch.LEVEL:
            if effort is not None and wanted.enabled is not False:
                found["reasoning_effort"] = effort
        case ThinkingSwitch.TEMPLATE:
            template: dict[str, Any] = {}
            if wanted.enabled is not None:
                template["enable_thinking"] = wanted.enabled
            if effort is not None and wanted.enabled is not False:
                template["reasoning_effort"] = effort
            if template:
                found["chat_template_kwargs"] = template
    if wanted.budget is not None and wanted.enabled is not False:
        if server.budget is None:
            dropped.append("thinking.budget_tokens")
        else:
            found[server.budget] = wanted.budget
    return found


def _clamped(effort: Effort, scale: Sequence[Effort]) -> Effort:
    """The nearest level of a scale: the next lower one if there is one."""
    at = _EFFORTS.index(effort)
    lower = [each for each in scale if _EFFORTS.index(each) <= at]
    return lower[-1] if lower else scale[0]

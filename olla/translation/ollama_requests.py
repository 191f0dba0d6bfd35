"""Reads requests in Ollama's native format (`/api/chat` and `/api/generate`)."""

from typing import Final

import msgspec

from olla.translation.conversation import (
    Conversation,
    Effort,
    Image,
    Message,
    OutputFormat,
    Part,
    Reasoning,
    Role,
    Sampling,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Unsupported,
)
from olla.translation.decoding import ABSENT, compact, decode, present, top_level
from olla.translation.turns import Turns

__all__ = ["image_type", "read_chat", "read_generate"]

_LOAD_OPTIONS: Final = frozenset(
    {"num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap", "numa"}
)
"""Options that belong to the loaded model."""
_SAME_SAMPLING: Final = frozenset(Sampling.__struct_fields__) - {"num_keep", "logit_bias"}
_IMAGE_TYPES: Final = (
    ("iVBORw0KGgo", "image/png"),
    ("/9j/", "image/jpeg"),
    ("R0lGOD", "image/gif"),
    ("UklGR", "image/webp"),
)
"""Media types by the first base64 characters."""
_IGNORED: Final = frozenset({"truncate", "shift"})


class _Function(msgspec.Struct):
    name: str = ""
    description: str | None = None
    arguments: msgspec.Raw = ABSENT
    parameters: msgspec.Raw = ABSENT


class _Call(msgspec.Struct):
    function: _Function
    id: str | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[_Call] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class _Tool(msgspec.Struct):
    function: _Function


class _Chat(msgspec.Struct):
    model: str
    messages: list[_Message] | None = None
    stream: bool | None = None
    options: dict[str, msgspec.Raw] | None = None
    keep_alive: msgspec.Raw = ABSENT
    think: bool | str | None = None
    format: msgspec.Raw = ABSENT
    tools: list[_Tool] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class _Generate(msgspec.Struct):
    model: str
    prompt: str | None = None
    system: str | None = None
    images: list[str] | None = None
    suffix: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    stream: bool | None = None
    options: dict[str, msgspec.Raw] | None = None
    keep_alive: msgspec.Raw = ABSENT
    think: bool | str | None = None
    format: msgspec.Raw = ABSENT
    logprobs: bool | None = None
    top_logprobs: int | None = None


_CHAT: Final = msgspec.json.Decoder(_Chat)
_GENERATE: Final = msgspec.json.Decoder(_Generate)
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NUMBER: Final = msgspec.json.Decoder(float)
_WHOLE: Final = msgspec.json.Decoder(int)
_STOP: Final = msgspec.json.Decoder(str | list[str])
_FORMAT: Final = msgspec.json.Decoder(str | dict[str, msgspec.Raw])


def image_type(data: str) -> str:
    """The media type of base64 data, by its first bytes."""
    for start, kind in _IMAGE_TYPES:
        if data.startswith(start):
            return kind
    return "image/jpeg"


def read_chat(body: bytes) -> Conversation:
    """The conversation of a body for `/api/chat`. Without messages it only loads the model.

    Raises:
        Unsupported: a field is missing or wrong.
    """
    read = decode(_CHAT, body)
    messages = _Messages()
    for at, message in enumerate(read.messages or ()):
        messages.add(message, at)
    tools = tuple(
        Tool(
            each.function.name,
            each.function.description,
            present(each.function.parameters) or Tool("").parameters,
        )
        for each in read.tools or ()
    )
    conversation = _conversation(read, body, _Chat)
    return msgspec.structs.replace(conversation, messages=messages.finished(), tools=tools)


def read_generate(body: bytes) -> Conversation:
    """The conversation of a body for `/api/generate`: one message of the user.

    Raises:
        Unsupported: a field is missing or wrong, or has no counterpart in chats.
    """
    read = decode(_GENERATE, body)
    for name, value in (
        ("suffix", read.suffix),
        ("template", read.template),
        ("context", read.context),
        ("raw", read.raw),
    ):
        if value:
            raise Unsupported(name, "no server of this model takes it; use an Ollama endpoint")
    turns = Turns()
    parts: list[Text | Image] = [Text(read.prompt)] if read.prompt else []
    parts += [Image(image_type(each), each) for each in read.images or ()]
    if parts:
        turns.user(parts)
    conversation = _conversation(read, body, _Generate)
    messages = turns.finished(read.system or "") if parts else ()
    return msgspec.structs.replace(conversation, messages=messages)


class _Messages:
    """Messages, with ids for the calls and results that have none.

    Home Assistant sends calls without an id and results without an id or a name. Ids follow from
    positions, so that the same history gives the same bytes.
    """

    def __init__(self) -> None:
        self._turns = Turns()
        self._system = ""
        self._begun = False
        self._open: list[ToolCall] = []
        """The calls without a result, in their order."""

    def add(self, message: _Message, at: int) -> None:
        """Add a message."""
        field = f"messages[{at}]"
        text = [Text(message.content)] if message.content else []
        images = [Image(image_type(each), each) for each in message.images or ()]
        match message.role:
            case "system" if not self._begun:
                joined = [part for part in (self._system, message.content) if part]
                self._system = "\n\n".join(joined)
                return
            case "system":
                self._turns.system(message.content or "")
            case "user":
                self._turns.user([*text, *images])
            case "assistant":
                self._assistant(message, at, text)
            case "tool":
                call = self._call_of(message)
                name = call.name if call is not None else message.tool_name or ""
                id = message.tool_call_id or (call.id if call is not None else f"call_{at}_0")
                self._turns.user([ToolResult(id, (*text, *images), name)])
            case _:
                raise Unsupported(
                    f"{field}.role",
                    f"'{message.role}' is not one of {', '.join(role.value for role in Role)}",
                )
        self._begun = True

    def finished(self) -> tuple[Message, ...]:
        """All messages."""
        return self._turns.finished(self._system) if self._begun or self._system else ()

    def _assistant(self, message: _Message, at: int, text: list[Text]) -> None:
        parts: list[Part] = [Thinking(message.thinking)] if message.thinking else []
        parts += text
        self._open = []
        for number, call in enumerate(message.tool_calls or ()):
            field = f"messages[{at}].tool_calls[{number}].function"
            if not call.function.name:
                raise Unsupported(f"{field}.name", "is missing")
            arguments = present(call.function.arguments) or msgspec.Raw(b"{}")
            decode(_OBJECT, arguments, f"{field}.arguments")
            made = ToolCall(
                call.id or f"call_{at}_{number}", call.function.name, compact(arguments)
            )
            parts.append(made)
            self._open.append(made)
        if parts:
            self._turns.assistant(parts)

    def _call_of(self, message: _Message) -> ToolCall | None:
        """The call that a result belongs to: by its id, else by its name, else the next one."""
        found = None
        if message.tool_call_id:
            found = next((each for each in self._open if each.id == message.tool_call_id), None)
        elif message.tool_name:
            found = next((each for each in self._open if each.name == message.tool_name), None)
        elif self._open:
            found = self._open[0]
        if found is not None:
            self._open.remove(found)
        return found


def _conversation(
    read: _Chat | _Generate, body: bytes, shape: type[_Chat] | type[_Generate]
) -> Conversation:
    """All but the messages and tools."""
    dropped = [
        name
        for name in top_level(body)
        if name not in shape.__struct_fields__ and name not in _IGNORED
    ]
    sampling: dict[str, float | int] = {}
    load_options: dict[str, float] = {}
    stop: tuple[str, ...] = ()
    output_max: int | None = None
    for name, written in (read.options or {}).items():
        value, field = present(written), f"options.{name}"
        if value is None:
            continue
        if name == "stop":
            stops = decode(_STOP, value, field)
            stop = (stops,) if isinstance(stops, str) else tuple(stops)
        elif name == "num_predict":
            limit = decode(_WHOLE, value, field)
            output_max = limit if limit >= 0 else None
        elif name == "seed":
            seed = decode(_WHOLE, value, field)
            if seed >= 0:
                sampling["seed"] = seed
        elif name == "num_keep" or name in _SAME_SAMPLING:
            number = decode(_NUMBER, value, field)
            sampling[name] = int(number) if number.is_integer() and name in _INTEGERS else number
        elif name in _LOAD_OPTIONS and bytes(value)[:1] not in b"tf":
            load_options[name] = decode(_NUMBER, value, field)
        else:
            dropped.append(field)
    return Conversation(
        read.model,
        (),
        stream=read.stream is not False,
        stream_usage=True,
        output_max=output_max,
        stop=stop,
        sampling=Sampling(**sampling),  # type: ignore[arg-type]
        output_format=_output_format(read.format),
        reasoning=_reasoning(read.think),
        logprobs=bool(read.logprobs),
        top_logprobs=read.top_logprobs,
        load_options=load_options,
        keep_alive=present(read.keep_alive),
        dropped=tuple(dropped),
    )


_INTEGERS: Final = frozenset({"top_k", "repeat_last_n", "num_keep", "mirostat"})


def _output_format(written: msgspec.Raw) -> OutputFormat | None:
    value = present(written)
    if value is None:
        return None
    wanted = decode(_FORMAT, value, "format")
    if isinstance(wanted, dict):
        return OutputFormat(value, "schema")
    if wanted == "json":
        return OutputFormat()
    if not wanted:
        return None
    raise Unsupported("format", f"'{wanted}' is neither 'json' nor a JSON schema")


def _reasoning(think: bool | str | None) -> Reasoning:
    if think is None or isinstance(think, bool):
        return Reasoning(think, hidden=think is False)
    try:
        return Reasoning(True, Effort(think))
    except ValueError:
        raise Unsupported(
            "think", f"'{think}' is not a boolean or one of low, medium, high, max"
        ) from None

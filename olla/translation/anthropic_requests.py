"""Reads requests in Anthropic's format (`POST /v1/messages`).

Fields that only tune or observe are dropped without being known: clients add new ones with every
release, and strictness would break them each time.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from olla.translation.conversation import (
    Conversation,
    Effort,
    Image,
    OutputFormat,
    Part,
    Reasoning,
    Sampling,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Unsupported,
)
from olla.translation.decoding import ABSENT, compact, decode, present, top_level
from olla.translation.turns import Turns

__all__ = ["read_request"]

_BILLING: Final = re.compile(
    r"\Ax-anthropic-billing-header:(?:[^\n]*?\bcch=[0-9a-f]{1,16};|[^\n]*(?:\n|\Z))[ \n]*"
)
"""Claude Code begins its system prompt with a line that differs in each request. Left in, it costs
the whole prefix cache."""
_SYSTEM_JOINER: Final = "\n\n"
_USER_ROLES: Final = frozenset({"user", "ctx", "msg"})
_NO_SCHEMA: Final = msgspec.Raw(b'{"type":"object","properties":{}}')
_IMPLIED: Final = {
    "bash_": (
        "Run a command in a bash shell.",
        msgspec.Raw(
            b'{"type":"object","properties":{"command":{"type":"string","description":'
            b'"The command to run."},"restart":{"type":"boolean","description":'
            b'"Restart the shell instead."}}}'
        ),
    ),
    "text_editor_": (
        "View, create and edit text files.",
        msgspec.Raw(
            b'{"type":"object","properties":{"command":{"type":"string","enum":'
            b'["view","create","str_replace","insert","undo_edit"]},"path":{"type":"string"},'
            b'"file_text":{"type":"string"},"old_str":{"type":"string"},"new_str":'
            b'{"type":"string"},"insert_line":{"type":"integer"},"view_range":{"type":"array",'
            b'"items":{"type":"integer"}}},"required":["command","path"]}'
        ),
    ),
}
"""Tools whose schema clients do not send, by the beginning of their type."""
_CHOICES: Final = {
    "auto": ToolChoice.AUTO,
    "any": ToolChoice.REQUIRED,
    "none": ToolChoice.NONE,
    "tool": ToolChoice.NAMED,
}


class _Source(msgspec.Struct):
    type: str = ""
    media_type: str = ""
    data: str = ""
    url: str = ""
    content: msgspec.Raw = ABSENT


class _Block(msgspec.Struct):
    """A content block of any type, with the fields of all of them."""

    type: str
    text: str | None = None
    thinking: str | None = None
    source: msgspec.Raw = ABSENT
    title: str | None = None
    id: str | None = None
    name: str | None = None
    input: msgspec.Raw = ABSENT
    tool_use_id: str | None = None
    tool_name: str | None = None
    content: msgspec.Raw = ABSENT
    is_error: bool | None = None
    url: str | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Block]


class _Tool(msgspec.Struct):
    name: str = ""
    type: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = ABSENT
    strict: bool | None = None


class _Choice(msgspec.Struct):
    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Thinking(msgspec.Struct):
    type: str = "enabled"
    budget_tokens: int | None = None
    display: str | None = None


class _Format(msgspec.Struct):
    type: str = ""
    schema: msgspec.Raw = ABSENT


class _Output(msgspec.Struct):
    effort: str | None = None
    format: _Format | None = None


class _Metadata(msgspec.Struct):
    user_id: str | None = None


class _Body(msgspec.Struct):
    model: str
    messages: list[_Message]
    max_tokens: int | None = None
    stream: bool | None = None
    system: str | list[_Block] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    tools: list[_Tool] | None = None
    tool_choice: _Choice | None = None
    thinking: _Thinking | None = None
    output_config: _Output | None = None
    output_format: _Format | None = None
    metadata: _Metadata | None = None


_BODY: Final = msgspec.json.Decoder(_Body)
_CONTENT: Final = msgspec.json.Decoder(str | list[_Block])
_SOURCE: Final = msgspec.json.Decoder(_Source)
_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_request(body: bytes, *, counts_only: bool = False) -> Conversation:
    """Read the conversation of a body. `counts_only`: for token counting, without `max_tokens`.

    Raises:
        Unsupported: a field is missing or wrong, or what it asks for cannot be translated.
    """
    read = decode(_BODY, body)
    if not counts_only and (read.max_tokens is None or read.max_tokens <= 0):
        raise Unsupported("max_tokens", "must be a number above 0")
    dropped = [name for name in top_level(body) if name not in _Body.__struct_fields__]
    turns = Turns()
    for at, message in enumerate(read.messages):
        _message(turns, message, f"messages[{at}]")
    tools = _tools(read, dropped)
    choice, choosing = read.tool_choice, ToolChoice.AUTO
    if choice is not None:
        if choice.type not in _CHOICES:
            raise Unsupported(
                "tool_choice.type", f"'{choice.type}' is not one of {_listed(_CHOICES)}"
            )
        choosing = _CHOICES[choice.type]
    return Conversation(
        read.model,
        turns.finished(_system(read.system)),
        stream=bool(read.stream),
        stream_usage=True,
        tools=tools,
        tool_choice=choosing,
        forced_tool=(choice.name or "") if choice is not None else "",
        parallel_calls=False if choice is not None and choice.disable_parallel_tool_use else None,
        output_max=read.max_tokens,
        stop=tuple(read.stop_sequences or ()),
        sampling=Sampling(temperature=read.temperature, top_p=read.top_p, top_k=read.top_k),
        output_format=_format(read),
        reasoning=_reasoning(read),
        affinity=(read.metadata.user_id or "") if read.metadata is not None else "",
        dropped=tuple(dropped),
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _system(system: str | list[_Block] | None) -> str:
    texts = [system or ""] if not isinstance(system, list) else [b.text or "" for b in system]
    return _SYSTEM_JOINER.join(text for each in texts if (text := _BILLING.sub("", each)))


def _message(turns: Turns, message: _Message, field: str) -> None:
    content = message.content
    blocks = [_Block("text", text=content)] if isinstance(content, str) else content
    if message.role in _USER_ROLES:
        for at, block in enumerate(blocks):
            if block.type == "mid_conv_system":
                turns.system(_text_of(block, f"{field}.content[{at}]"))
            else:
                turns.user(_user_parts(block, f"{field}.content[{at}]"))
    elif message.role == "system":
        for at, block in enumerate(blocks):
            turns.system(_text_of(block, f"{field}.content[{at}]"))
    elif message.role == "assistant":
        for at, block in enumerate(blocks):
            _assistant_block(turns, block, f"{field}.content[{at}]")
    else:
        raise Unsupported(
            f"{field}.role", f"'{message.role}' is not one of user, assistant, system"
        )


def _text_of(block: _Block, field: str) -> str:
    """The text of a block that may hold its text in blocks below it."""
    if block.text is not None:
        return block.text
    content = present(block.content)
    parts = _below(content, field) if content is not None else []
    return "\n\n".join(part.text for part in parts if isinstance(part, Text))


def _user_parts(block: _Block, field: str) -> list[Text | Image | ToolResult]:
    match block.type:
        case "tool_result":
            return [_result(block, field)]
        case _:
            return [*_content_parts(block, field)]


def _content_parts(block: _Block, field: str) -> list[Text | Image]:
    """A block of a user's message or of a result."""
    match block.type:
        case "text":
            return [Text(block.text)] if block.text else []
        case "image":
            return [_image(block, field)]
        case "document":
            return _document(block, field)
        case "search_result":
            source = decode(
                msgspec.json.Decoder(str), present(block.source) or b'""', f"{field}.source"
            )
            lines = [block.title or "", source, _text_of(block, field)]
            return [Text("\n".join(line for line in lines if line))]
        case "tool_reference":
            return [Text(block.tool_name or block.name or "")]
        case _:
            raise Unsupported(f"{field}.type", f"'{block.type}' is not supported here")


def _below(content: msgspec.Raw, field: str) -> list[Text | Image]:
    """The parts of a field that holds text or blocks."""
    value = decode(_CONTENT, content, field)
    if isinstance(value, str):
        return [Text(value)] if value else []
    return [
        part for at, each in enumerate(value) for part in _content_parts(each, f"{field}[{at}]")
    ]


def _source(block: _Block, field: str) -> _Source:
    source = present(block.source)
    if source is None:
        raise Unsupported(f"{field}.source", "is missing")
    return decode(_SOURCE, source, f"{field}.source")


def _image(block: _Block, field: str) -> Image:
    source = _source(block, field)
    match source.type:
        case "base64":
            return Image(source.media_type or "image/jpeg", source.data)
        case "url":
            return Image(url=source.url)
        case _:
            raise Unsupported(
                f"{field}.source.type",
                f"'{source.type}' is not supported: files are not stored here; "
                "send the image as base64",
            )


def _document(block: _Block, field: str) -> list[Text | Image]:
    source = _source(block, field)
    title = [Text(block.title)] if block.title else []
    if source.type == "text":
        return [*title, Text(source.data)]
    content = present(source.content)
    if source.type == "content" and content is not None:
        return [*title, *_below(content, f"{field}.source.content")]
    kind = source.media_type or source.type
    raise Unsupported(
        f"{field}.source", f"a document of type '{kind}' is not supported; send its text"
    )


def _result(block: _Block, field: str) -> ToolResult:
    if not block.tool_use_id:
        raise Unsupported(f"{field}.tool_use_id", "is missing")
    inner = present(block.content)
    content = () if inner is None else tuple(_below(inner, f"{field}.content"))
    return ToolResult(block.tool_use_id, content, is_error=bool(block.is_error))


def _assistant_block(turns: Turns, block: _Block, field: str) -> None:
    parts: list[Part] = []
    match block.type:
        case "text":
            parts = [Text(block.text)] if block.text else []
        case "thinking":
            parts = [Thinking(block.thinking)] if block.thinking else []
        case "redacted_thinking":
            pass
        case "tool_use" | "server_tool_use":
            if not block.id or not block.name:
                raise Unsupported(field, "a call of a tool needs an id and a name")
            parts = [ToolCall(block.id, block.name, _input(block, f"{field}.input"))]
        case "web_search_tool_result":
            turns.user([ToolResult(block.tool_use_id or "", (Text(_found(block)),))])
        case _:
            raise Unsupported(f"{field}.type", f"'{block.type}' is not supported here")
    if parts:
        turns.assistant(parts)


def _input(block: _Block, field: str) -> str:
    arguments = present(block.input)
    if arguments is None:
        return "{}"
    decode(_OBJECT, arguments, field)
    return compact(arguments)


def _found(block: _Block) -> str:
    """The results of a search, as lines of titles and addresses."""
    try:
        value = _CONTENT.decode(present(block.content) or b"[]")
    except msgspec.MsgspecError:
        return ""
    if isinstance(value, str):
        return value
    return "\n".join(f"- {each.title}: {each.url}" for each in value if each.title or each.url)


def _tools(read: _Body, dropped: list[str]) -> tuple[Tool, ...]:
    found: list[Tool] = []
    server_side: list[str] = []
    for at, tool in enumerate(read.tools or ()):
        implied = next(
            (each for start, each in _IMPLIED.items() if (tool.type or "").startswith(start)), None
        )
        if tool.type in (None, "custom") or present(tool.input_schema) is not None:
            if not tool.name:
                raise Unsupported(f"tools[{at}].name", "is missing")
            schema = _schema(tool.input_schema, f"tools[{at}].input_schema")
            found.append(Tool(tool.name, tool.description, schema, tool.strict))
        elif implied is not None:
            found.append(Tool(tool.name, tool.description or implied[0], implied[1]))
        else:
            server_side.append(tool.name or tool.type or "")
            dropped.append(f"tools[{at}]")
    forced = read.tool_choice.name if read.tool_choice is not None else None
    if server_side and (not found or forced in server_side):
        raise Unsupported(
            "tools", f"'{forced or server_side[0]}' runs at Anthropic and is not available here"
        )
    return tuple(found)


def _schema(written: msgspec.Raw, field: str) -> msgspec.Raw:
    """A schema, which servers need to be of a type."""
    schema = present(written)
    if schema is None:
        return _NO_SCHEMA
    fields = decode(_OBJECT, schema, field)
    if "type" in fields:
        return schema
    return msgspec.Raw(msgspec.json.encode({"type": "object", **fields}))


def _format(read: _Body) -> OutputFormat | None:
    wanted = read.output_config.format if read.output_config is not None else None
    wanted = wanted or read.output_format
    schema = present(wanted.schema) if wanted is not None else None
    if wanted is None or schema is None:
        return None
    if wanted.type != "json_schema":
        raise Unsupported("output_config.format.type", f"'{wanted.type}' is not 'json_schema'")
    return OutputFormat(schema, "output")


def _reasoning(read: _Body) -> Reasoning:
    thinking, effort = read.thinking, None
    named: Any = read.output_config.effort if read.output_config is not None else None
    if named is not None:
        try:
            effort = Effort(named)
        except ValueError:
            raise Unsupported(
                "output_config.effort",
                f"'{named}' is not one of {_listed(e.value for e in Effort)}",
            ) from None
    if thinking is None:
        return Reasoning(effort=effort)
    match thinking.type:
        case "disabled":
            return Reasoning(enabled=False, hidden=True)
        case "enabled" | "adaptive":
            hidden = thinking.display == "omitted"
            return Reasoning(True, effort, thinking.budget_tokens, hidden)
        case _:
            raise Unsupported(
                "thinking.type", f"'{thinking.type}' is not one of enabled, adaptive, disabled"
            )

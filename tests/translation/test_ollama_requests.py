"""Requests in Ollama's native format are read as its clients write them."""

import json
from typing import Any

import pytest

from olla.translation.conversation import (
    Conversation,
    Effort,
    Image,
    Message,
    Part,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Unsupported,
)
from olla.translation.ollama_requests import read_chat, read_generate
from olla.translation.openai_requests import write_request
from olla.translation.servers import SERVERS

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


def chat(*messages: dict[str, Any], **fields: Any) -> Conversation:
    """The conversation of a body for `/api/chat`."""
    return read_chat(json.dumps({"model": "m", "messages": list(messages), **fields}).encode())


def upstream(conversation: Conversation, server: str = "vllm") -> dict[str, Any]:
    """What a server is sent."""
    body: dict[str, Any] = json.loads(write_request(conversation, "m", SERVERS[server]).body)
    return body


def call(name: str, id: str | None = None, **arguments: Any) -> dict[str, Any]:
    """A call in an assistant message."""
    return {"function": {"name": name, "arguments": arguments}, **({"id": id} if id else {})}


def said(role: Role, *parts: Part) -> Message:
    """A message of the common form."""
    return Message(role, parts)


USER = {"role": "user", "content": "go"}


def test_calls_without_ids_are_named_by_their_place() -> None:
    """And results without anything are matched in order, as Home Assistant sends them."""
    found = chat(
        USER,
        {"role": "assistant", "content": "", "tool_calls": [call("f", a=1), call("g")]},
        {"role": "tool", "content": "one"},
        {"role": "tool", "content": "two"},
    )
    assert found.messages == (
        said(Role.USER, Text("go")),
        said(Role.ASSISTANT, ToolCall("call_1_0", "f", '{"a":1}'), ToolCall("call_1_1", "g", "{}")),
        said(Role.TOOL, ToolResult("call_1_0", (Text("one"),), "f")),
        said(Role.TOOL, ToolResult("call_1_1", (Text("two"),), "g")),
    )


def test_results_are_matched_by_name_or_id() -> None:
    """Whichever the client sends."""
    calls = [call("f", "i1"), call("g", "i2")]
    found = chat(
        USER,
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "content": "two", "tool_name": "g"},
        {"role": "tool", "content": "one", "tool_call_id": "i1"},
    )
    results = [each.parts[0] for each in found.messages if each.role is Role.TOOL]
    assert results == [
        ToolResult("i2", (Text("two"),), "g"),
        ToolResult("i1", (Text("one"),), "f"),
    ]


def test_null_is_absent() -> None:
    """LangChain sends nulls; a context length is the router's business, not the server's."""
    options = {"temperature": None, "num_ctx": 8192, "num_predict": -1, "seed": -1}
    found = chat(USER, options=options, think=None, format=None, tools=None, keep_alive=None)
    assert upstream(found) == {
        "model": "m",
        "messages": [{"role": "user", "content": "go"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert found.load_options == {"num_ctx": 8192.0}


def test_options_are_read() -> None:
    """With the server's names; what it does not know is named."""
    options = {"num_predict": 5, "temperature": 0, "top_k": 3, "stop": "a", "num_batch": 4, "x": 1}
    found = chat(USER, options=options, stream=False)
    body = upstream(found)
    assert (body["max_completion_tokens"], body["top_k"], body["stop"]) == (5, 3, ["a"])
    assert body["temperature"] == 0
    assert "options.x" in found.dropped
    assert "stream" not in body


@pytest.mark.parametrize(
    ("think", "enabled", "effort", "hidden"),
    [(True, True, None, False), (False, False, None, True), ("high", True, Effort.HIGH, False)],
)
def test_thinking(think: Any, enabled: bool, effort: Effort | None, hidden: bool) -> None:
    """On, off, or a level."""
    reasoning = chat(USER, think=think).reasoning
    assert (reasoning.enabled, reasoning.effort, reasoning.hidden) == (enabled, effort, hidden)


def test_formats() -> None:
    """JSON, a schema as it was written, or none."""
    assert chat(USER, format="json").output_format is not None
    schema = chat(USER, format={"b": 1, "a": 2}).output_format
    assert schema is not None
    assert json.loads(bytes(schema.schema or b"")) == {"b": 1, "a": 2}
    assert chat(USER, format="").output_format is None


def test_images_and_thinking() -> None:
    """The type of an image follows from its first bytes."""
    pictures = {"role": "user", "content": "see", "images": ["iVBORw0KGgoAAA", "xxxx"]}
    found = chat(pictures, {"role": "assistant", "content": "a", "thinking": "hm"})
    assert found.messages[0].parts[1:] == (
        Image("image/png", "iVBORw0KGgoAAA"),
        Image("image/jpeg", "xxxx"),
    )
    assert found.messages[1].parts == (Thinking("hm"), Text("a"))


def test_system_messages() -> None:
    """The first ones lead, a later one joins the user's turn."""
    system = {"role": "system", "content": "s"}
    found = chat(system, {**system, "content": "t"}, USER, {**system, "content": "later"})
    assert found.messages == (
        said(Role.SYSTEM, Text("s\n\nt")),
        said(Role.USER, Text("go"), Text("later")),
    )


def test_without_messages_there_is_nothing_to_ask() -> None:
    """The model is loaded, or unloaded."""
    assert chat(keep_alive=0).messages == ()
    assert read_generate(b'{"model":"m"}').messages == ()


def test_generate_is_a_message_of_the_user() -> None:
    """With its system prompt; what only Ollama can do is refused."""
    found = read_generate(b'{"model":"m","prompt":"p","system":"s","stream":false}')
    assert found.messages == (said(Role.SYSTEM, Text("s")), said(Role.USER, Text("p")))
    for field in ('"suffix":"x"', '"raw":true', '"template":"t"', '"context":[1]'):
        with pytest.raises(Unsupported, match=field.partition(":")[0].strip('"')):
            read_generate(b'{"model":"m","prompt":"p",%b}' % field.encode())


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"messages": [{"role": "x", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages"),
        ({"format": "yaml"}, "format"),
        ({"think": "much"}, "think"),
        ({"options": {"num_predict": "many"}}, "options.num_predict"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": {}}}]}]},
            "messages[0].tool_calls[0].function.name",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [call("f") | {"x": 1}]}], "tools": 1},
            "tools",
        ),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], field: str) -> None:
    """By the path of the field."""
    body = {"model": "m", "messages": [USER], **fields}
    with pytest.raises(Unsupported) as caught:
        read_chat(json.dumps(body).encode())
    assert caught.value.field.startswith(field)

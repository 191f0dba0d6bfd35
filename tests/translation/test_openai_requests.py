"""What servers that speak OpenAI's chat format are sent."""

import json
from typing import Any

import msgspec
import pytest

from olla.translation.conversation import (
    Conversation,
    Effort,
    Image,
    Message,
    OutputFormat,
    Reasoning,
    Role,
    Sampling,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Unsupported,
)
from olla.translation.openai_requests import write_request
from olla.translation.servers import SERVERS

SCHEMA = msgspec.Raw(b'{"type":"object","properties":{"z":{},"a":{}}}')
TOOLS = (Tool("X", "does x", SCHEMA), Tool("Y"))
IMAGE = Image("image/png", "iVBORw0K")


def user(*parts: Text | Image) -> Message:
    """A message of the user."""
    return Message(Role.USER, parts)


def result(call: str, *content: Text | Image, is_error: bool = False) -> Message:
    """A message with the result of a call."""
    return Message(Role.TOOL, (ToolResult(call, content, is_error=is_error),))


def written(server: str = "vllm", *messages: Message, **fields: Any) -> dict[str, Any]:
    """The body that a server is sent."""
    conversation = Conversation("m", messages or (user(Text("hi")),), **fields)
    body: dict[str, Any] = json.loads(write_request(conversation, "m", SERVERS[server]).body)
    return body


def test_results_come_before_the_users_text() -> None:
    """The results of a turn follow their calls; nothing stands between them."""
    call = Message(Role.ASSISTANT, (ToolCall("t1", "X", '{"a":1}'),))
    messages = written("vllm", call, result("t1", Text("r")), user(Text("go")))["messages"]
    assert messages == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "t1", "type": "function", "function": {"name": "X", "arguments": '{"a":1}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "t1", "content": "r"},
        {"role": "user", "content": "go"},
    ]


def test_images_of_results_follow_all_results() -> None:
    """A tool message holds only text, so the images go into a message of the user."""
    messages = written("vllm", result("a", Text("x"), IMAGE), result("b", Text("y")))["messages"]
    assert [each["role"] for each in messages] == ["tool", "tool", "user"]
    url = "data:image/png;base64,iVBORw0K"
    assert messages[2]["content"] == [{"type": "image_url", "image_url": {"url": url}}]


@pytest.mark.parametrize("text", ["boom", "Error: boom"])
def test_an_error_is_marked_once(text: str) -> None:
    """OpenAI's format has no field for it."""
    (message,) = written("vllm", result("a", Text(text), is_error=True))["messages"]
    assert message["content"] == "Error: boom"


def test_a_result_without_text_is_an_empty_string() -> None:
    """Null breaks templates."""
    (message,) = written("vllm", result("a"))["messages"]
    assert message["content"] == ""


def test_one_tool_is_forced_as_the_server_can() -> None:
    """By its name, or by the only tool that it is sent; Ollama cannot, and it is said."""
    forced = {"tools": TOOLS, "tool_choice": ToolChoice.NAMED, "forced_tool": "X"}
    named = written("vllm", **forced)
    assert named["tool_choice"] == {"type": "function", "function": {"name": "X"}}
    assert len(named["tools"]) == 2
    required = written("llamacpp", **forced)
    assert required["tool_choice"] == "required"
    assert [each["function"]["name"] for each in required["tools"]] == ["X"]
    conversation = Conversation("m", (user(Text("hi")),), **forced)  # type: ignore[arg-type]
    dropped = write_request(conversation, "m", SERVERS["ollama"])
    assert "tool_choice" in dropped.dropped
    assert b"tool_choice" not in dropped.body


def test_a_tool_that_is_not_there_cannot_be_forced() -> None:
    """The field is named."""
    with pytest.raises(Unsupported, match="tool_choice: no tool is named 'Z'"):
        written("vllm", tools=TOOLS, tool_choice=ToolChoice.NAMED, forced_tool="Z")


def test_without_tools_nothing_of_them_is_sent() -> None:
    """VLLM rejects an empty list and a choice without tools."""
    body = written("vllm", tools=(), tool_choice=ToolChoice.AUTO, parallel_calls=True)
    assert body == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_schemas_keep_their_bytes() -> None:
    """Their order is part of the prompt."""
    conversation = Conversation("m", (user(Text("hi")),), tools=TOOLS)
    assert SCHEMA in write_request(conversation, "m", SERVERS["vllm"]).body


@pytest.mark.parametrize(
    ("server", "reasoning", "expected"),
    [
        ("vllm", Reasoning(enabled=False), {"reasoning_effort": "none"}),
        (
            "llamacpp",
            Reasoning(enabled=False),
            {"chat_template_kwargs": {"enable_thinking": False}},
        ),
        ("ollama", Reasoning(enabled=False), {"reasoning_effort": "none"}),
        ("openai-compatible", Reasoning(enabled=False), {}),
        ("ollama", Reasoning(effort=Effort.XHIGH), {"reasoning_effort": "high"}),
        ("lm-studio", Reasoning(effort=Effort.MINIMAL), {"reasoning_effort": "low"}),
        ("vllm", Reasoning(enabled=True, budget=2048), {"thinking_token_budget": 2048}),
        (
            "llamacpp",
            Reasoning(enabled=True, effort=Effort.HIGH, budget=9),
            {
                "chat_template_kwargs": {"enable_thinking": True, "reasoning_effort": "high"},
                "thinking_budget_tokens": 9,
            },
        ),
    ],
)
def test_thinking_is_switched_as_the_server_has_it(
    server: str, reasoning: Reasoning, expected: dict[str, Any]
) -> None:
    """Each kind of server has another switch, and another scale."""
    body = written(server, reasoning=reasoning)
    assert {name: body[name] for name in body.keys() - {"model", "messages"}} == expected


def test_sampling_has_the_servers_names() -> None:
    """What a server does not have is dropped, and named."""
    sampling = Sampling(temperature=0.0, top_k=5, repeat_penalty=1.1, mirostat=1)
    conversation = Conversation("m", (user(Text("hi")),), sampling=sampling, output_max=7)
    sent = write_request(conversation, "m", SERVERS["vllm"])
    body = json.loads(sent.body)
    assert (body["temperature"], body["top_k"], body["repetition_penalty"]) == (0.0, 5, 1.1)
    assert body["max_completion_tokens"] == 7
    assert sent.dropped == ("mirostat",)
    assert json.loads(write_request(conversation, "m", SERVERS["ollama"]).body)["max_tokens"] == 7


def test_streams_always_ask_for_counts() -> None:
    """Limits and usage need them; the client gets them only if it asks."""
    assert written("vllm", stream=True)["stream_options"] == {"include_usage": True}
    assert "stream_options" not in written("vllm")


def test_images_by_url_need_a_server_that_fetches() -> None:
    """The router fetches nothing for clients."""
    picture = user(Text("what?"), Image(url="https://x.example/a.png"))
    parts = written("vllm", picture)["messages"][0]["content"]
    assert parts[1]["image_url"]["url"] == "https://x.example/a.png"
    with pytest.raises(Unsupported, match="base64"):
        written("ollama", picture)


def test_thinking_goes_back_under_both_names() -> None:
    """Servers read one of them."""
    thought = Message(Role.ASSISTANT, (Thinking("hm"), Text("a")))
    (message,) = written("openai-compatible", thought)["messages"]
    assert (message["reasoning"], message["reasoning_content"]) == ("hm", "hm")
    assert message["content"] == "a"


def test_an_answer_can_be_continued() -> None:
    """VLLM needs to be told."""
    begun = Message(Role.ASSISTANT, (Text("Once"),))
    assert written("vllm", user(Text("go")), begun)["continue_final_message"] is True
    assert "continue_final_message" not in written("llamacpp", user(Text("go")), begun)


def test_json_output_is_asked_for() -> None:
    """Any object, or one of a schema, which stays as it is."""
    assert written("vllm", output_format=OutputFormat())["response_format"] == {
        "type": "json_object"
    }
    wanted = written("vllm", output_format=OutputFormat(SCHEMA))["response_format"]
    assert wanted["json_schema"] == {"name": "output", "schema": json.loads(bytes(SCHEMA))}


def test_logprobs_and_tools_do_not_meet_in_a_stream_of_llama_cpp() -> None:
    """It answers 400 to both."""
    fields = {"tools": TOOLS, "stream": True, "logprobs": True, "top_logprobs": 2}
    assert "logprobs" not in written("llamacpp", **fields)
    assert written("vllm", **fields)["top_logprobs"] == 2

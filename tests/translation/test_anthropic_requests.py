"""Requests in Anthropic's format are read as its clients write them."""

import json
from typing import Any

import pytest

from olla.translation.anthropic_requests import read_request
from olla.translation.conversation import (
    Effort,
    Image,
    Message,
    OutputFormat,
    Part,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolChoice,
    ToolResult,
    Unsupported,
)
from olla.translation.openai_requests import write_request
from olla.translation.servers import SERVERS

TOOL = {"name": "X", "description": "d", "input_schema": {"type": "object", "properties": {}}}


def body(*messages: dict[str, Any], **fields: Any) -> bytes:
    """A request's body."""
    said = list(messages) or [{"role": "user", "content": "hi"}]
    return json.dumps({"model": "m", "max_tokens": 5, "messages": said, **fields}).encode()


def user(*content: Any) -> dict[str, Any]:
    """A user's message with these blocks."""
    return {"role": "user", "content": list(content)}


def assistant(*content: Any) -> dict[str, Any]:
    """The assistant's message with these blocks."""
    return {"role": "assistant", "content": list(content)}


def text(value: str) -> dict[str, Any]:
    """A text block."""
    return {"type": "text", "text": value}


def use(id: str = "t1", name: str = "X", **arguments: Any) -> dict[str, Any]:
    """A call."""
    return {"type": "tool_use", "id": id, "name": name, "input": arguments}


def result(id: str = "t1", content: Any = "r", **more: Any) -> dict[str, Any]:
    """A result."""
    return {"type": "tool_result", "tool_use_id": id, "content": content, **more}


def messages(*said: dict[str, Any], **fields: Any) -> tuple[Message, ...]:
    """The messages of the common form."""
    return read_request(body(*said, **fields)).messages


def said(role: Role, *parts: Part) -> Message:
    """A message of the common form."""
    return Message(role, parts)


def test_results_come_first_in_their_turn() -> None:
    """A client may put its text before them."""
    found = messages(assistant(use(a=1)), user(text("go"), result()))
    assert found == (
        said(Role.ASSISTANT, ToolCall("t1", "X", '{"a":1}')),
        said(Role.TOOL, ToolResult("t1", (Text("r"),))),
        said(Role.USER, Text("go")),
    )


def test_messages_of_one_role_are_one_turn() -> None:
    """Some templates demand that user and assistant alternate."""
    found = messages(user(text("a")), user(text("b")), assistant(text("c")), assistant(use()))
    assert [each.role for each in found] == [Role.USER, Role.ASSISTANT]
    assert found[0].parts == (Text("a"), Text("b"))
    assert found[1].parts == (Text("c"), ToolCall("t1", "X", "{}"))


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (
            [user(text("a")), {"role": "system", "content": "s"}, assistant(text("b"))],
            [(Role.USER, (Text("a"), Text("s"))), (Role.ASSISTANT, (Text("b"),))],
        ),
        (
            [assistant(text("b")), {"role": "system", "content": "s"}, user(text("a"))],
            [(Role.ASSISTANT, (Text("b"),)), (Role.USER, (Text("a"), Text("s")))],
        ),
        (
            [assistant(use()), user(result()), {"role": "system", "content": [text("s")]}],
            [
                (Role.ASSISTANT, (ToolCall("t1", "X", "{}"),)),
                (Role.TOOL, (ToolResult("t1", (Text("r"), Text("s"))),)),
            ],
        ),
    ],
    ids=["after the user", "before the user", "after results"],
)
def test_a_system_message_in_the_middle_joins_the_users_turn(
    said: list[dict[str, Any]], expected: list[tuple[Role, tuple[Part, ...]]]
) -> None:
    """At its end, so that the beginning of the prompt stays; never between call and result."""
    assert [(each.role, each.parts) for each in messages(*said)] == expected


@pytest.mark.parametrize(
    "system",
    [
        lambda cch: [text(f"x-anthropic-billing-header: cc_version=2; cch={cch};"), text("S")],
        lambda cch: f"x-anthropic-billing-header: cc_version=2; cch={cch};\nS",
    ],
    ids=["block", "string"],
)
def test_a_billing_line_does_not_change_the_prompt(system: Any) -> None:
    """It differs in each request of Claude Code, and would empty the prefix cache."""
    server = SERVERS["vllm"]
    sent = {
        write_request(read_request(body(system=system(cch))), "m", server).body
        for cch in ("0a1b2", "ffffe")
    }
    assert len(sent) == 1
    assert json.loads(sent.pop())["messages"][0] == {"role": "system", "content": "S"}


def test_images_and_texts_of_results() -> None:
    """Base64 and URLs; what stays at Anthropic is refused by its place."""
    source = {"type": "base64", "media_type": "image/png", "data": "AA"}
    shown = [text("t"), {"type": "image", "source": source}]
    found = messages(assistant(use()), user(result(content=shown)))
    assert found[1].parts == (ToolResult("t1", (Text("t"), Image("image/png", "AA"))),)
    (with_url,) = messages(user({"type": "image", "source": {"type": "url", "url": "http://x"}}))
    assert with_url.parts == (Image(url="http://x"),)
    stored = {"type": "image", "source": {"type": "file", "file_id": "f"}}
    with pytest.raises(Unsupported, match=r"messages\[0\].content\[1\].source.type"):
        messages(user(text("a"), stored))


def test_documents_are_inlined_or_refused() -> None:
    """Text is text; a PDF is named."""
    plain = {"type": "document", "title": "T", "source": {"type": "text", "data": "body"}}
    assert messages(user(plain))[0].parts == (Text("T"), Text("body"))
    source = {"type": "base64", "media_type": "application/pdf", "data": "AA"}
    with pytest.raises(Unsupported, match=r"messages\[0\].content\[0\].source.*application/pdf"):
        messages(user({"type": "document", "source": source}))


def test_thinking_is_kept_and_its_signature_is_not() -> None:
    """Servers read it as reasoning."""
    thought = {"type": "thinking", "thinking": "hm", "signature": "abc"}
    hidden = {"type": "redacted_thinking", "data": "x"}
    found = messages(user(text("a")), assistant(thought, hidden, text("b")), user(text("c")))
    assert found[1].parts == (Thinking("hm"), Text("b"))


def test_a_message_that_is_left_empty_is_dropped() -> None:
    """Servers reject it."""
    found = messages(user(text("a")), assistant({"type": "redacted_thinking"}), user(text("b")))
    assert [each.role for each in found] == [Role.USER, Role.USER] or len(found) == 1


def test_searches_of_the_past_become_calls_and_results() -> None:
    """They ran at Anthropic; their results are text."""
    search = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}}
    found = {"type": "web_search_result", "title": "T", "url": "http://x", "encrypted_content": "z"}
    came = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [found]}
    read = messages(user(text("a")), assistant(search, came, text("b")))
    assert [each.role for each in read] == [Role.USER, Role.ASSISTANT, Role.TOOL, Role.ASSISTANT]
    assert read[2].parts == (ToolResult("s1", (Text("- T: http://x"),)),)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, ToolChoice.AUTO),
        ({"type": "any"}, ToolChoice.REQUIRED),
        ({"type": "none"}, ToolChoice.NONE),
        ({"type": "tool", "name": "X"}, ToolChoice.NAMED),
    ],
)
def test_choices_of_tools(choice: dict[str, Any], expected: ToolChoice) -> None:
    """And whether calls may be parallel."""
    once = {**choice, "disable_parallel_tool_use": True}
    found = read_request(body(tools=[TOOL], tool_choice=once))
    assert (found.tool_choice, found.parallel_calls) == (expected, False)
    assert found.forced_tool == choice.get("name", "")


def test_tools_of_every_kind() -> None:
    """Those of the client; those with a schema that is known; those that run at Anthropic."""
    bash = {"type": "bash_20250124", "name": "bash"}
    search = {"type": "web_search_20250305", "name": "web_search"}
    found = read_request(body(tools=[{**TOOL, "cache_control": {}}, bash, search]))
    assert [each.name for each in found.tools] == ["X", "bash"]
    assert "command" in json.loads(bytes(found.tools[1].parameters))["properties"]
    assert found.dropped == ("tools[2]",)
    with pytest.raises(Unsupported, match="web_search"):
        read_request(body(tools=[search]))
    forced = {"type": "tool", "name": "web_search"}
    with pytest.raises(Unsupported, match="web_search"):
        read_request(body(tools=[TOOL, search], tool_choice=forced))


def test_a_schema_without_a_type_is_one_of_an_object() -> None:
    """Its fields keep their order."""
    found = read_request(body(tools=[{"name": "X", "input_schema": {"z": 1, "a": 2}}]))
    assert bytes(found.tools[0].parameters) == b'{"type":"object","z":1,"a":2}'


def test_thinking_and_effort() -> None:
    """On, off, left to the model, and how much."""
    on = read_request(body(thinking={"type": "enabled", "budget_tokens": 2000})).reasoning
    assert (on.enabled, on.budget, on.hidden) == (True, 2000, False)
    off = read_request(body(thinking={"type": "disabled"})).reasoning
    assert (off.enabled, off.hidden) == (False, True)
    free = {"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}}
    assert read_request(body(**free)).reasoning.effort is Effort.XHIGH
    omitted = {"type": "enabled", "budget_tokens": 1024, "display": "omitted"}
    assert read_request(body(thinking=omitted)).reasoning.hidden


def test_output_formats() -> None:
    """The schema stays as it is."""
    wanted = {"type": "json_schema", "schema": {"b": 1, "a": 2}}
    for fields in ({"output_config": {"format": wanted}}, {"output_format": wanted}):
        found = read_request(body(**fields)).output_format
        assert isinstance(found, OutputFormat)
        assert bytes(found.schema or b"") == b'{"b": 1, "a": 2}'


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        (b'{"model":"m","messages":[]}', "max_tokens"),
        (b'{"model":"m","messages":[],"max_tokens":0}', "max_tokens"),
        (b'{"messages":[],"max_tokens":1}', "body"),
        (b'{"model":"m","messages":[{"role":"user","content":7}],"max_tokens":1}', "messages"),
        (
            b'{"model":"m","messages":[{"role":"x","content":"a"}],"max_tokens":1}',
            "messages[0].role",
        ),
        (body(assistant({"type": "tool_use", "name": "X", "input": {}})), "messages[0].content[0]"),
        (body(user({"type": "tool_result", "content": "x"})), "messages[0].content[0].tool_use_id"),
        (body(temperature="hot"), "temperature"),
        (b"nonsense", "body"),
    ],
)
def test_what_is_wrong_is_named(sent: bytes, field: str) -> None:
    """By the path of the field."""
    with pytest.raises(Unsupported) as caught:
        read_request(sent)
    assert caught.value.field.startswith(field)


def test_unknown_fields_are_dropped_and_named() -> None:
    """Clients add new ones with every release."""
    assert read_request(body(service_tier="auto", x_new=1)).dropped == ("service_tier", "x_new")

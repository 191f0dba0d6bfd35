"""A response that breaks off raises in the official clients and in an HTTP/1.0 client."""

import json
import socket
from collections.abc import Callable, Iterator

import anthropic
import ollama
import openai
import pytest

from olla.simulation.faults import Fault
from tests.routers import ThreadedFleet, threaded_fleet

MODEL = "llama3.2:latest"
MESSAGES = [{"role": "user", "content": "a story"}]
BREAKS = ("reset_mid", "end_early", "bad_framing", "short_body")


@pytest.fixture(scope="module")
def fleet() -> Iterator[ThreadedFleet]:
    """Run a router over a node that is slow enough for streams to have begun when they break."""
    with threaded_fleet({"a": (MODEL,)}, time_scale=1.0, load_bandwidth=1e12) as running:
        yield running


def native(url: str) -> str:
    """Read a chat with Ollama's client."""
    with ollama.Client(url) as client:
        parts = client.chat(MODEL, MESSAGES, stream=True)  # type: ignore[arg-type]
        return "".join(part.message.content or "" for part in parts)


def chat(url: str) -> str:
    """Read a chat completion with OpenAI's client."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        parts = client.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,  # type: ignore[arg-type]
            stream=True,
        )
        return "".join(part.choices[0].delta.content or "" for part in parts if part.choices)


def responses(url: str) -> str:
    """Read a response from OpenAI's Responses API with OpenAI's client."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        events = client.responses.create(model=MODEL, input="a story", stream=True)
        return "".join(event.delta for event in events if event.type.endswith("text.delta"))


def messages(url: str) -> str:
    """Read a message with Anthropic's client."""
    with (
        anthropic.Anthropic(base_url=url, api_key="x", max_retries=0) as client,
        client.messages.stream(
            model=MODEL,
            max_tokens=50,
            messages=MESSAGES,  # type: ignore[arg-type]
        ) as stream,
    ):
        return "".join(stream.text_stream)


def http_1_0(url: str) -> str:
    """Read a chat as an HTTP/1.0 client, such as nginx by default: the response ends when the
    connection closes."""
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps({"model": MODEL, "messages": MESSAGES}).encode()
    head = f"POST /api/chat HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    received = b""
    with socket.create_connection((host, int(port)), timeout=15) as client:
        client.sendall(head + body)
        try:
            while data := client.recv(65536):
                received += data
        except ConnectionResetError as error:
            raise ConnectionResetError(received.splitlines()[-1].decode()) from error
    return received.decode()


CLIENTS: dict[str, tuple[Callable[[str], str], tuple[type[Exception], ...]]] = {
    "http/1.0": (http_1_0, (ConnectionResetError,)),
    "ollama": (native, (ollama.ResponseError,)),
    "openai": (chat, (openai.APIError,)),
    "openai responses": (responses, (openai.APIError,)),
    "anthropic": (messages, (anthropic.APIError,)),
}


@pytest.mark.parametrize(("read", "errors"), CLIENTS.values(), ids=list(CLIENTS))
def test_a_complete_response_does_not_raise(
    fleet: ThreadedFleet, read: Callable[[str], str], errors: tuple[type[Exception], ...]
) -> None:
    """This is the control for the next test."""
    del errors
    assert read(fleet.url)


@pytest.mark.parametrize("trouble", BREAKS)
@pytest.mark.parametrize(("read", "errors"), CLIENTS.values(), ids=list(CLIENTS))
def test_a_response_that_breaks_off_raises(
    fleet: ThreadedFleet,
    read: Callable[[str], str],
    errors: tuple[type[Exception], ...],
    trouble: str,
) -> None:
    """A reset, an early clean end and broken framing are never taken for a complete response."""
    faults = fleet.fleet.nodes["a"].faults
    faults.set(trouble, Fault(count=1, after=3))
    with pytest.raises(errors) as raised:
        read(fleet.url)
    assert "'a'" in str(raised.value)
    faults.clear()

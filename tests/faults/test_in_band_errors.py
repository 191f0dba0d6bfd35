"""An answer that breaks off raises in the official clients and in a plain old one."""

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
WORDS = [{"role": "user", "content": "a story"}]
BREAKS = ("reset_mid", "end_early", "bad_framing", "short_body")


@pytest.fixture(scope="module")
def fleet() -> Iterator[ThreadedFleet]:
    """A router over one node, which is so slow that what breaks has begun."""
    with threaded_fleet({"a": (MODEL,)}, time_scale=1.0, load_bandwidth=1e12) as running:
        yield running


def native(url: str) -> str:
    """What Ollama's client reads."""
    with ollama.Client(url) as client:
        parts = client.chat(MODEL, WORDS, stream=True)  # type: ignore[arg-type]
        return "".join(part.message.content or "" for part in parts)


def chat(url: str) -> str:
    """What OpenAI's client reads."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        parts = client.chat.completions.create(
            model=MODEL,
            messages=WORDS,  # type: ignore[arg-type]
            stream=True,
        )
        return "".join(part.choices[0].delta.content or "" for part in parts if part.choices)


def responses(url: str) -> str:
    """What OpenAI's client reads of its newer API."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
        events = client.responses.create(model=MODEL, input="a story", stream=True)
        return "".join(event.delta for event in events if event.type.endswith("text.delta"))


def messages(url: str) -> str:
    """What Anthropic's client reads."""
    with (
        anthropic.Anthropic(base_url=url, api_key="x", max_retries=0) as client,
        client.messages.stream(
            model=MODEL,
            max_tokens=50,
            messages=WORDS,  # type: ignore[arg-type]
        ) as stream,
    ):
        return "".join(stream.text_stream)


def old(url: str) -> str:
    """What a client of HTTP/1.0 reads, nginx as it comes for one: the connection's end is the
    answer's."""
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps({"model": MODEL, "messages": WORDS}).encode()
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
    "http/1.0": (old, (ConnectionResetError,)),
    "ollama": (native, (ollama.ResponseError,)),
    "openai": (chat, (openai.APIError,)),
    "openai responses": (responses, (openai.APIError,)),
    "anthropic": (messages, (anthropic.APIError,)),
}


@pytest.mark.parametrize(("read", "errors"), CLIENTS.values(), ids=list(CLIENTS))
def test_a_whole_answer_is_no_error(
    fleet: ThreadedFleet, read: Callable[[str], str], errors: tuple[type[Exception], ...]
) -> None:
    """So that what follows means something."""
    del errors
    assert read(fleet.url)


@pytest.mark.parametrize("trouble", BREAKS)
@pytest.mark.parametrize(("read", "errors"), CLIENTS.values(), ids=list(CLIENTS))
def test_an_answer_that_breaks_off_raises(
    fleet: ThreadedFleet,
    read: Callable[[str], str],
    errors: tuple[type[Exception], ...],
    trouble: str,
) -> None:
    """A reset, a clean end before the answer's own, broken framing: never taken for the whole."""
    faults = fleet.fleet.nodes["a"].faults
    faults.set(trouble, Fault(count=1, after=3))
    with pytest.raises(errors) as raised:
        read(fleet.url)
    assert "'a'" in str(raised.value)
    faults.clear()

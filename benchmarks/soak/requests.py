"""Send requests to the router, and classify the outcomes.

A response is right if its text equals the reference's and its last record was received. A request
may fail if the client can see it: by a status, an error within the stream, or a connection without
a clean end. Any other response is wrong or silently truncated, and fails the run.
"""

import enum
import json
import random
from typing import Any

import aiohttp
import msgspec

__all__ = ["Outcome", "Question", "Reply", "ask", "questions"]


class Outcome(enum.Enum):
    """How a request ended, as its client sees it."""

    RIGHT = "right"
    UNAVAILABLE = "failed before the first byte"
    BROKEN = "visibly broken"
    LEFT = "canceled by the client"
    WRONG = "WRONG OR SILENTLY TRUNCATED"


class Question(msgspec.Struct, frozen=True):
    """One request."""

    path: str
    body: dict[str, Any]
    streams: bool

    @property
    def key(self) -> str:
        """The path and body, which identify it."""
        return f"{self.path} {json.dumps(self.body, sort_keys=True)}"


class Reply(msgspec.Struct):
    """A response. `why` explains an outcome other than RIGHT."""

    outcome: Outcome
    text: str = ""
    why: str = ""
    endpoint: str = ""


def questions(rng: random.Random, count: int) -> list[Question]:
    """Draw `count` different requests, of every API."""
    drawn: list[Question] = []
    for number in range(count):
        model = rng.choice(("llama3.2", "mistral"))
        text = f"question {number}: {rng.random()}"
        if rng.random() < 0.1:
            text += " long" * 20_000  # long enough to count toward the body budget
        length = rng.randrange(5, 40)
        streams = rng.random() < 0.7
        messages = [{"role": "user", "content": text}]
        native = {"model": model, "stream": streams, "options": {"num_predict": length}}
        v1 = {"model": model, "stream": streams, "max_tokens": length}
        path, body = rng.choice(
            (
                ("/api/generate", {**native, "prompt": text}),
                ("/olla/ollama/api/chat", {**native, "messages": messages}),
                ("/v1/chat/completions", {**v1, "messages": messages}),
                ("/v1/completions", {**v1, "prompt": text}),
                ("/v1/messages", {**v1, "messages": messages}),
                ("/api/embed", {"model": "nomic-embed-text", "input": text}),
            )
        )
        drawn.append(Question(path, body, streams and path != "/api/embed"))
    return drawn


async def ask(
    session: aiohttp.ClientSession,
    base: str,
    question: Question,
    *,
    leave_after: int | None = None,
) -> Reply:
    """Send a request and read the response, or hang up after `leave_after` bytes.

    The text is not compared with the reference here.
    """
    received = b""
    endpoint = ""
    started = False
    try:
        async with session.post(base + question.path, json=question.body) as response:
            endpoint = response.headers.get("X-Olla-Endpoint", "")
            if response.status != 200:
                body = (await response.read())[:200].decode(errors="replace")
                return Reply(Outcome.UNAVAILABLE, why=f"{response.status} {body}")
            started = True
            async for piece in response.content.iter_any():
                received += piece
                if leave_after is not None and len(received) >= leave_after:
                    response.close()
                    return Reply(Outcome.LEFT)
    except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
        outcome = Outcome.BROKEN if started else Outcome.UNAVAILABLE
        return Reply(outcome, why=repr(error)[:200], endpoint=endpoint)
    reply = _stream(received) if question.streams else _complete(received)
    reply.endpoint = endpoint
    return reply


def _complete(received: bytes) -> Reply:
    try:
        answer = json.loads(received)
    except ValueError:
        return Reply(Outcome.BROKEN, why=f"not JSON: {received[-60:]!r}")
    if not isinstance(answer, dict):
        return Reply(Outcome.WRONG, why=f"not an object: {received[:60]!r}")
    if "error" in answer:
        return Reply(Outcome.BROKEN, why=str(answer["error"]))
    if "embeddings" in answer:
        return Reply(Outcome.RIGHT, str(answer["embeddings"]))
    if "choices" in answer:
        choice = answer["choices"][0]
        return Reply(Outcome.RIGHT, choice.get("text") or choice["message"]["content"])
    if "content" in answer:
        return Reply(Outcome.RIGHT, "".join(part["text"] for part in answer["content"]))
    return Reply(Outcome.RIGHT, answer.get("response") or answer["message"]["content"])


def _stream(received: bytes) -> Reply:
    text, ended = "", False
    for line in received.decode(errors="replace").splitlines():
        if not line.strip() or line.startswith(("event:", ":")):
            continue
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            continue
        try:
            record = json.loads(data)
        except ValueError:
            return Reply(Outcome.BROKEN, why=f"not JSON: {data[:60]}")
        if record.get("error") is not None:
            return Reply(Outcome.BROKEN, why=str(record["error"])[:200])
        piece, end = _record(record)
        text += piece
        ended = ended or end
    if not ended:
        return Reply(
            Outcome.WRONG, text, why=f"a clean end without the last record: {received[-80:]!r}"
        )
    return Reply(Outcome.RIGHT, text)


def _record(record: dict[str, Any]) -> tuple[str, bool]:
    """Return the text of a stream's record, and whether it is the last one."""
    if "choices" in record:
        if not record["choices"]:
            return "", False
        choice = record["choices"][0]
        text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
        return text, choice.get("finish_reason") is not None
    if "type" in record:
        delta = record.get("delta") or {}
        return delta.get("text") or "", record["type"] == "message_stop"
    text = record.get("response") or (record.get("message") or {}).get("content") or ""
    return text, record.get("done") is True

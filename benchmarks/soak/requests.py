"""What clients ask, and what became of it: right, told that it failed, or wrong.

An answer is right when its text is the reference's and its own end was seen. It may fail, if the
client can see that: by a status, by an error within the stream, by a connection that ends without
an end. Anything else is a wrong or silently cut answer, of which there must be none.
"""

import enum
import json
import random
from typing import Any

import aiohttp
import msgspec

__all__ = ["Outcome", "Question", "Reply", "ask", "questions"]


class Outcome(enum.Enum):
    """What became of a request, as its client sees it."""

    RIGHT = "right"
    UNAVAILABLE = "failed before its first byte"
    BROKEN = "failed in the middle, and said so"
    LEFT = "given up by its client"
    WRONG = "WRONG OR SILENTLY CUT"


class Question(msgspec.Struct, frozen=True):
    """One request."""

    path: str
    body: dict[str, Any]
    streams: bool

    @property
    def key(self) -> str:
        """What tells it from others."""
        return f"{self.path} {json.dumps(self.body, sort_keys=True)}"


class Reply(msgspec.Struct):
    """What came back. `why` says what was wrong, for people."""

    outcome: Outcome
    text: str = ""
    why: str = ""
    endpoint: str = ""


def questions(rng: random.Random, count: int) -> list[Question]:
    """So many different ones, of every API."""
    found: list[Question] = []
    for number in range(count):
        model = rng.choice(("llama3.2", "mistral"))
        words = f"question {number}: {rng.random()}"
        if rng.random() < 0.1:
            words += " long" * 20_000  # beyond what is held without being counted
        length = rng.randrange(5, 40)
        streams = rng.random() < 0.7
        messages = [{"role": "user", "content": words}]
        native = {"model": model, "stream": streams, "options": {"num_predict": length}}
        v1 = {"model": model, "stream": streams, "max_tokens": length}
        path, body = rng.choice(
            (
                ("/api/generate", {**native, "prompt": words}),
                ("/olla/ollama/api/chat", {**native, "messages": messages}),
                ("/v1/chat/completions", {**v1, "messages": messages}),
                ("/v1/completions", {**v1, "prompt": words}),
                ("/v1/messages", {**v1, "messages": messages}),
                ("/api/embed", {"model": "nomic-embed-text", "input": words}),
            )
        )
        found.append(Question(path, body, streams and path != "/api/embed"))
    return found


async def ask(
    session: aiohttp.ClientSession,
    base: str,
    question: Question,
    *,
    leave_after: int | None = None,
) -> Reply:
    """Ask, and read to the end; or hang up after so many bytes. Does not know what is right."""
    received = b""
    endpoint = ""
    begun = False
    try:
        async with session.post(base + question.path, json=question.body) as response:
            endpoint = response.headers.get("X-Olla-Endpoint", "")
            if response.status != 200:
                told = (await response.read())[:200].decode(errors="replace")
                return Reply(Outcome.UNAVAILABLE, why=f"{response.status} {told}")
            begun = True
            async for piece in response.content.iter_any():
                received += piece
                if leave_after is not None and len(received) >= leave_after:
                    response.close()
                    return Reply(Outcome.LEFT)
    except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
        outcome = Outcome.BROKEN if begun else Outcome.UNAVAILABLE
        return Reply(outcome, why=repr(error)[:200], endpoint=endpoint)
    read = _stream(received) if question.streams else _whole(received)
    read.endpoint = endpoint
    return read


def _whole(received: bytes) -> Reply:
    try:
        answer = json.loads(received)
    except ValueError:
        return Reply(Outcome.BROKEN, why=f"no JSON: {received[-60:]!r}")
    if not isinstance(answer, dict):
        return Reply(Outcome.WRONG, why=f"no object: {received[:60]!r}")
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
            return Reply(Outcome.BROKEN, why=f"no JSON: {data[:60]}")
        if record.get("error") is not None:
            return Reply(Outcome.BROKEN, why=str(record["error"])[:200])
        piece, end = _record(record)
        text += piece
        ended = ended or end
    if not ended:
        return Reply(Outcome.WRONG, text, why=f"a clean end before its own: {received[-80:]!r}")
    return Reply(Outcome.RIGHT, text)


def _record(record: dict[str, Any]) -> tuple[str, bool]:
    """A stream's record: the text in it, and whether it is the last."""
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

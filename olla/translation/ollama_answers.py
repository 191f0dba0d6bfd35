"""Writes answers in Ollama's native format: a JSON object a line, or one object."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from olla.translation.answer import (
    CallBegin,
    CallEnd,
    End,
    Event,
    Failed,
    Finish,
    FinishReason,
    Logprobs,
    TextDelta,
    ThinkingDelta,
)
from olla.translation.codec import Reply
from olla.translation.dates import rfc3339
from olla.translation.merging import Ledger, WholeAnswer

__all__ = ["OllamaStreamWriter", "OllamaWholeWriter", "loaded"]

_REASONS: Final = {
    FinishReason.LENGTH: "length",
    FinishReason.LOADED: "load",
    FinishReason.UNLOADED: "unload",
}
_NANO: Final = 1_000_000_000


def loaded(reply: Reply, *, chat: bool, unloaded: bool) -> bytes:
    """The answer to a request without content, which loads or unloads the model: one object,
    streamed or not."""
    return msgspec.json.encode(
        {
            "model": reply.model,
            "created_at": rfc3339(reply.created),
            **_said(chat, ""),
            "done": True,
            "done_reason": "unload" if unloaded else "load",
        }
    )


def _said(
    chat: bool, text: str, thinking: str = "", calls: Sequence[object] = ()
) -> dict[str, Any]:
    """Return the content of a record, in the form of the route."""
    if not chat:
        return {"response": text, **({"thinking": thinking} if thinking else {})}
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if thinking:
        message["thinking"] = thinking
    if calls:
        message["tool_calls"] = calls
    return {"message": message}


def _call(number: int, id: str, name: str, arguments: str) -> dict[str, Any]:
    function = {"index": number, "name": name, "arguments": msgspec.Raw(arguments.encode())}
    return {"id": id, "function": function}


class _Times:
    """When the answer began, in monotonic seconds, for durations that the server does not tell."""

    __slots__ = ("first", "started")

    def __init__(self, started: float) -> None:
        self.started = started
        self.first: float | None = None

    def end(self, ledger: Ledger, now: float) -> dict[str, Any]:
        """The counts and durations of the last record. Durations are never 0 beside a count:
        clients divide by them."""
        usage = ledger.usage
        first = now if self.first is None else self.first
        prompt = usage.prompt_seconds
        output = usage.output_seconds
        found: dict[str, Any] = {"total_duration": max(int((now - self.started) * _NANO), 1)}
        if usage.load_seconds:
            found["load_duration"] = int(usage.load_seconds * _NANO)
        if usage.prompt_tokens is not None:
            found["prompt_eval_count"] = usage.prompt_tokens
            seconds = first - self.started if prompt is None else prompt
            found["prompt_eval_duration"] = max(int(seconds * _NANO), 1)
        found["eval_count"] = ledger.output_tokens
        found["eval_duration"] = max(int((now - first if output is None else output) * _NANO), 1)
        return found


class OllamaStreamWriter:
    """Writes one record a line. See `AnswerWriter`.

    Calls are objects here, so one is written once its arguments are complete.
    """

    content_type = "application/x-ndjson"

    __slots__ = ("_begun", "_calls", "_chat", "_ledger", "_reply", "_times", "begun")

    def __init__(self, reply: Reply, *, chat: bool = True) -> None:
        self._reply = reply
        self._chat = chat
        self._ledger = Ledger(reply)
        self._times = _Times(reply.started)
        self._begun: dict[int, CallBegin] = {}
        self._calls: list[dict[str, Any]] = []
        self.begun = False

    def write(self, events: Iterable[Event], now: float) -> bytes:
        """See `AnswerWriter.write`."""
        out: list[bytes] = []
        wanted = self._ledger.wanted(events)
        for at, event in enumerate(wanted):
            match event:
                case TextDelta():
                    follows = wanted[at + 1] if at + 1 < len(wanted) else None
                    more = {"logprobs": follows.content} if isinstance(follows, Logprobs) else {}
                    self._line(out, now, _said(self._chat, event.text), **more)
                case ThinkingDelta():
                    self._line(out, now, _said(self._chat, "", event.text))
                case CallBegin():
                    self._begun[event.call] = event
                case CallEnd():
                    begun = self._begun[event.call]
                    call = _call(len(self._calls), begun.id, begun.name, event.arguments)
                    self._calls.append(call)
                case Finish() if self._calls:
                    self._line(out, now, _said(self._chat, "", calls=self._calls))
                case End():
                    reason = _REASONS.get(self._ledger.reason, "stop")
                    counts = self._times.end(self._ledger, now)
                    last = _said(self._chat, "")
                    self._line(out, now, last, done=True, done_reason=reason, **counts)
                case Failed() if self.begun:
                    out.append(msgspec.json.encode({"error": event.message}) + b"\n")
                case _:
                    pass
        return b"".join(out)

    def _line(self, out: list[bytes], now: float, said: dict[str, Any], **more: Any) -> None:
        self.begun = True
        if self._times.first is None:
            self._times.first = now
        record = {
            "model": self._reply.model,
            "created_at": rfc3339(self._reply.created + max(now - self._reply.started, 0.0)),
            **said,
            "done": False,
            **more,
        }
        out.append(msgspec.json.encode(record) + b"\n")


class OllamaWholeWriter:
    """Writes an answer as one object. See `AnswerWriter`."""

    content_type = "application/json; charset=utf-8"

    __slots__ = ("_answer", "_chat", "_ledger", "_logprobs", "_reply", "_times", "begun")

    def __init__(self, reply: Reply, *, chat: bool = True) -> None:
        self._reply = reply
        self._chat = chat
        self._ledger = Ledger(reply)
        self._times = _Times(reply.started)
        self._answer = WholeAnswer()
        self._logprobs: msgspec.Raw | None = None
        self.begun = False

    def write(self, events: Iterable[Event], now: float) -> bytes:
        """See `AnswerWriter.write`."""
        wanted = self._ledger.wanted(events)
        self._answer.add(wanted)
        for event in wanted:
            if isinstance(event, Logprobs):
                self._logprobs = event.content
        if not wanted or not isinstance(wanted[-1], End):
            return b""
        self.begun = True
        answer = self._answer
        calls = [
            _call(number, each.id, each.name, each.arguments)
            for number, each in enumerate(answer.calls)
        ]
        record = {
            "model": self._reply.model,
            "created_at": rfc3339(self._reply.created),
            **_said(self._chat, answer.text, answer.thinking, calls),
            "done": True,
            "done_reason": _REASONS.get(self._ledger.reason, "stop"),
            **self._times.end(self._ledger, now),
        }
        if self._logprobs is not None:
            record["logprobs"] = self._logprobs
        return msgspec.json.encode(record)

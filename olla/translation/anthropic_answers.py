"""Writes answers in Anthropic's format, streamed and whole.

The rules of a stream are stricter than they look: one content block is open at a time, indexes grow
by one, and a delta for a block that is not open makes Claude Code give up the turn.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from olla.translation.answer import (
    ArgumentsDelta,
    Begin,
    CallBegin,
    CallEnd,
    End,
    Event,
    Failed,
    Finish,
    FinishReason,
    TextDelta,
    ThinkingDelta,
)
from olla.translation.codec import Reply
from olla.translation.merging import Ledger, WholeAnswer

__all__ = ["AnthropicStreamWriter", "AnthropicWholeWriter", "error_type"]

_REASONS: Final = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.CALLS: "tool_use",
    FinishReason.FILTERED: "refusal",
    FinishReason.LOADED: "end_turn",
    FinishReason.UNLOADED: "end_turn",
}
_ERRORS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_type(status: int) -> str:
    """Anthropic's type of an error with an HTTP status."""
    return _ERRORS.get(status, "api_error" if status >= 500 else "invalid_request_error")


def _event(name: str, **fields: Any) -> bytes:
    data = msgspec.json.encode({"type": name, **fields})
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


def _stop(ledger: Ledger) -> tuple[str, str | None]:
    """`stop_reason` and `stop_sequence`."""
    finish = ledger.finish
    if finish is not None and finish.reason is FinishReason.STOP and finish.stop:
        return "stop_sequence", finish.stop
    return _REASONS[ledger.reason], None


def _usage(ledger: Ledger, reply: Reply) -> dict[str, Any]:
    """Anthropic counts cached tokens apart from the input, OpenAI's format within it."""
    usage = ledger.usage
    prompt = reply.prompt_tokens if usage.prompt_tokens is None else usage.prompt_tokens
    cached = min(usage.cached_tokens or 0, prompt)
    found: dict[str, Any] = {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": ledger.output_tokens,
    }
    if usage.reasoning_tokens is not None:
        found["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return found


def _message(reply: Reply, content: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    return {
        "id": f"msg_{reply.id}",
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": content,
        **fields,
    }


class _Waiting:
    """Content that has to wait until the open call ends: text, or another call."""

    __slots__ = ("begin", "ended", "pieces")

    def __init__(self, begin: CallBegin | None) -> None:
        self.begin = begin
        self.ended = False
        self.pieces: list[str] = []


class AnthropicStreamWriter:
    """Writes a stream of named events. See `AnswerWriter`."""

    content_type = "text/event-stream; charset=utf-8"

    __slots__ = ("_block", "_call", "_index", "_ledger", "_reply", "_waiting", "begun")

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._ledger = Ledger(reply)
        self.begun = False
        """Whether bytes were written."""
        self._index = -1
        self._block = ""
        """The type of the open block, empty if none is open."""
        self._call: int | None = None
        """The call whose block is open."""
        self._waiting: list[_Waiting] = []

    def write(self, events: Iterable[Event], now: float) -> bytes:
        """See `AnswerWriter.write`."""
        found: list[bytes] = []
        for event in self._ledger.wanted(events):
            self._write(event, found)
        return b"".join(found)

    def _write(self, event: Event, out: list[bytes]) -> None:
        match event:
            case Begin():
                self._begin(event, out)
            case TextDelta():
                self._text(event.text, out)
            case ThinkingDelta():
                if self._call is None:
                    self._open("thinking", out, thinking="", signature="")
                    self._delta(out, type="thinking_delta", thinking=event.text)
            case CallBegin():
                if self._call is None:
                    self._open_call(event, out)
                else:
                    self._waiting.append(_Waiting(event))
            case ArgumentsDelta():
                self._arguments(event, out)
            case CallEnd():
                self._end_call(event.call, out)
            case Finish():
                # A call that the output limit cut off has no end.
                self._waiting = [each for each in self._waiting if each.begin is None or each.ended]
                self._call = None
                self._flush(out)
                self._close(out)
            case End():
                self._end(out)
            case Failed() if self.begun:
                error = {"type": error_type(event.status), "message": event.message}
                out.append(_event("error", error=error, request_id=self._reply.id))
            case _:
                pass

    def _begin(self, begin: Begin, out: list[bytes]) -> None:
        self.begun = True
        prompt = self._reply.prompt_tokens if begin.prompt_tokens is None else begin.prompt_tokens
        usage = {
            "input_tokens": prompt,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 0,
        }
        message = _message(self._reply, [], stop_reason=None, stop_sequence=None, usage=usage)
        out += [_event("message_start", message=message), _event("ping")]

    def _text(self, text: str, out: list[bytes]) -> None:
        if self._call is None:
            self._open("text", out, text="")
            self._delta(out, type="text_delta", text=text)
            return
        last = self._waiting[-1] if self._waiting else None
        if last is None or last.begin is not None:
            last = _Waiting(None)
            self._waiting.append(last)
        last.pieces.append(text)

    def _arguments(self, event: ArgumentsDelta, out: list[bytes]) -> None:
        if event.call == self._call:
            self._delta(out, type="input_json_delta", partial_json=event.fragment)
            return
        for each in self._waiting:
            if each.begin is not None and each.begin.call == event.call:
                each.pieces.append(event.fragment)

    def _end_call(self, call: int, out: list[bytes]) -> None:
        if call == self._call:
            self._call = None
            self._close(out)
            self._flush(out)
            return
        for each in self._waiting:
            if each.begin is not None and each.begin.call == call:
                each.ended = True

    def _flush(self, out: list[bytes]) -> None:
        """Write what waited for the end of a call, up to the next call that is not complete."""
        while self._waiting and self._call is None:
            each = self._waiting.pop(0)
            content = "".join(each.pieces)
            if each.begin is None:
                if content.strip():  # blanks between calls say nothing
                    self._text(content, out)
                continue
            self._open_call(each.begin, out)
            if content:
                self._delta(out, type="input_json_delta", partial_json=content)
            if each.ended:
                self._call = None
                self._close(out)

    def _open_call(self, begin: CallBegin, out: list[bytes]) -> None:
        self._close(out)
        self._open("tool_use", out, id=begin.id, name=begin.name, input={})
        self._call = begin.call

    def _open(self, kind: str, out: list[bytes], **fields: Any) -> None:
        """Open a block of a type, unless one is open that can go on."""
        if self._block == kind and kind != "tool_use":
            return
        self._close(out)
        self._index += 1
        self._block = kind
        block = {"type": kind, **fields}
        out.append(_event("content_block_start", index=self._index, content_block=block))

    def _delta(self, out: list[bytes], **delta: Any) -> None:
        out.append(_event("content_block_delta", index=self._index, delta=delta))

    def _close(self, out: list[bytes]) -> None:
        if not self._block:
            return
        if self._block == "thinking":
            # Some clients require a signature. It is empty, because Anthropic rejects an invented
            # one if the conversation continues there.
            self._delta(out, type="signature_delta", signature="")
        out.append(_event("content_block_stop", index=self._index))
        self._block = ""

    def _end(self, out: list[bytes]) -> None:
        reason, sequence = _stop(self._ledger)
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        usage = _usage(self._ledger, self._reply)
        out += [_event("message_delta", delta=delta, usage=usage), _event("message_stop")]


class AnthropicWholeWriter:
    """Writes an answer as one message. See `AnswerWriter`."""

    content_type = "application/json"

    __slots__ = ("_answer", "_ledger", "_reply", "begun")

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._ledger = Ledger(reply)
        self._answer = WholeAnswer()
        self.begun = False

    def write(self, events: Iterable[Event], now: float) -> bytes:
        """See `AnswerWriter.write`."""
        wanted = self._ledger.wanted(events)
        self._answer.add(wanted)
        if not wanted or not isinstance(wanted[-1], End):
            return b""
        self.begun = True
        answer = self._answer
        content: list[dict[str, Any]] = []
        if answer.thinking:
            content.append({"type": "thinking", "thinking": answer.thinking, "signature": ""})
        if answer.text:
            content.append({"type": "text", "text": answer.text})
        content += [
            {
                "type": "tool_use",
                "id": call.id,
                "name": call.name,
                "input": msgspec.Raw(call.arguments.encode()),
            }
            for call in answer.calls
        ]
        reason, sequence = _stop(self._ledger)
        usage = _usage(self._ledger, self._reply)
        message = _message(
            self._reply, content, stop_reason=reason, stop_sequence=sequence, usage=usage
        )
        return msgspec.json.encode(message)

"""Reads answers in OpenAI's chat format, as the servers that imitate it write them."""

from typing import Any, Final

import msgspec

from olla.translation.answer import (
    Begin,
    End,
    Event,
    Failed,
    Finish,
    FinishReason,
    Logprobs,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from olla.translation.calls import CallAssembler
from olla.translation.decoding import ABSENT, present
from olla.translation.sse import RECORD_MAX, ServerEvent, SseReader, TooLong

__all__ = ["OpenAIStreamReader", "OpenAIWholeReader", "error_in"]

_DONE: Final = b"[DONE]"
_REASONS: Final = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.CALLS,
    "function_call": FinishReason.CALLS,
    "content_filter": FinishReason.FILTERED,
}
_MESSAGE_MAX = 500


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Any = None


class _Call(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Part(msgspec.Struct):
    text: str | None = None


class _Message(msgspec.Struct):
    content: str | list[_Part] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Logprobs(msgspec.Struct):
    content: msgspec.Raw = ABSENT


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Message | None = None
    message: _Message | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    logprobs: _Logprobs | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


class _Timings(msgspec.Struct):
    """llama.cpp's measurements, in milliseconds."""

    prompt_ms: float | None = None
    predicted_ms: float | None = None
    cache_n: int | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    timings: _Timings | None = None


_CHUNK: Final = msgspec.json.Decoder(_Chunk)
_ANY: Final = msgspec.json.Decoder()


class _Reader:
    """The common part of the readers of streams and of whole answers."""

    __slots__ = ("_begun", "_calls", "_failed", "_finished")

    def __init__(self, prefix: str) -> None:
        self._calls = CallAssembler(prefix)
        self._begun = False
        self._failed = False
        self._finished = False

    def _fail(self, message: str, status: int = 502) -> list[Event]:
        self._failed = True
        return [Failed(message, status)]

    def _chunk(self, data: bytes) -> list[Event]:
        """The events of one record, or of a whole body."""
        try:
            chunk = _CHUNK.decode(data)
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            return self._fail(
                *(error_in(data) or ("the endpoint sent a record that is not a chat chunk",))
            )
        if chunk.choices is None and chunk.usage is None:
            told = error_in(data)
            if told is not None:
                return self._fail(*told)
        found: list[Event] = []
        usage = _usage(chunk)
        if not self._begun:
            self._begun = True
            found.append(Begin(usage.prompt_tokens if usage is not None else None))
        for choice in chunk.choices or ():
            if choice.index > 0:
                return [*found, *self._fail("the endpoint sent more than one choice")]
            found += self._choice(choice)
            if any(isinstance(each, Failed) for each in found):
                self._failed = True
                return found
        if usage is not None:
            found.append(usage)
        return found

    def _choice(self, choice: _Choice) -> list[Event]:
        if self._finished:
            return []
        found: list[Event] = []
        message = choice.delta or choice.message
        if message is not None:
            thinking = message.reasoning or message.reasoning_content
            if thinking:
                found.append(ThinkingDelta(thinking))
            text = _text(message.content) or message.refusal
            if text:
                found.append(TextDelta(text))
            for call in message.tool_calls or ():
                function = call.function or _Function()
                found += self._calls.fragment(
                    call.index, call.id, function.name, _arguments(function.arguments)
                )
        if choice.logprobs is not None:
            content = present(choice.logprobs.content)
            if content is not None:
                found.append(Logprobs(content))
        if choice.finish_reason:
            found += self._finish(choice)
        return found

    def _finish(self, choice: _Choice) -> list[Event]:
        reason = _REASONS.get(choice.finish_reason or "")
        if reason is None:
            shown = (choice.finish_reason or "")[:40]
            return [Failed(f"the endpoint ended its answer with '{shown}'")]
        self._finished = True
        ends = self._calls.finish(cut=reason is FinishReason.LENGTH)
        if ends and isinstance(ends[-1], Failed):
            return ends
        if self._calls.any and reason is FinishReason.STOP:
            reason = FinishReason.CALLS
        elif reason is FinishReason.CALLS and not self._calls.any:
            reason = FinishReason.STOP
        stop = choice.stop_reason if isinstance(choice.stop_reason, str) else None
        return [*ends, Finish(reason, stop)]


class OpenAIStreamReader(_Reader):
    """Reads a stream of chunks. See `AnswerReader`."""

    __slots__ = ("_done", "_sse")

    def __init__(self, prefix: str = "call") -> None:
        super().__init__(prefix)
        self._sse = SseReader()
        self._done = False

    def feed(self, data: bytes) -> list[Event]:
        """See `AnswerReader.feed`."""
        if self._failed or self._done:
            return []
        try:
            records = self._sse.feed(data)
        except TooLong:
            return self._fail("the endpoint sent a record that is too long")
        return self._records(records)

    def end(self) -> list[Event]:
        """See `AnswerReader.end`."""
        if self._failed or self._done:
            return []
        found = self._records(self._sse.end())
        if found and isinstance(found[-1], Failed | End):
            return found
        if not self._finished:
            return [*found, *self._fail("the endpoint ended its answer before it was complete")]
        return [*found, End()]  # some servers send no [DONE]

    def _records(self, records: list[ServerEvent]) -> list[Event]:
        found: list[Event] = []
        for record in records:
            if record.data == _DONE:
                if not self._finished:
                    message = "the endpoint ended its answer before it was complete"
                    return [*found, *self._fail(message)]
                self._done = True
                return [*found, End()]
            found += self._chunk(record.data)
            if self._failed:
                break
        return found


class OpenAIWholeReader(_Reader):
    """Reads an answer in one piece. See `AnswerReader`."""

    __slots__ = ("_pieces", "_size")

    def __init__(self, prefix: str = "call") -> None:
        super().__init__(prefix)
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[Event]:
        """See `AnswerReader.feed`."""
        self._size += len(data)
        if self._failed:
            return []
        if self._size > RECORD_MAX:
            self._pieces = []
            return self._fail("the endpoint sent an answer that is too long")
        self._pieces.append(data)
        return []

    def end(self) -> list[Event]:
        """See `AnswerReader.end`."""
        if self._failed:
            return []
        found = self._chunk(b"".join(self._pieces))
        if found and isinstance(found[-1], Failed):
            return found
        if not self._finished:
            return [*found, *self._fail("the endpoint's answer has no finish_reason")]
        return [*found, End()]


def _text(content: str | list[_Part] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text or "" for part in content)


def _arguments(value: Any) -> str | None:
    """The JSON text of arguments, which some servers send as an object."""
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def _usage(chunk: _Chunk) -> Usage | None:
    usage, timings = chunk.usage, chunk.timings
    if usage is None and timings is None:
        return None
    usage, timings = usage or _Usage(), timings or _Timings()
    prompt, output = usage.prompt_tokens_details, usage.completion_tokens_details
    cached = prompt.cached_tokens if prompt is not None else None
    return Usage(
        prompt_tokens=usage.prompt_tokens,
        output_tokens=usage.completion_tokens,
        cached_tokens=timings.cache_n if cached is None else cached,
        reasoning_tokens=output.reasoning_tokens if output is not None else None,
        prompt_seconds=None if timings.prompt_ms is None else timings.prompt_ms / 1000,
        output_seconds=None if timings.predicted_ms is None else timings.predicted_ms / 1000,
    )


def error_in(body: bytes) -> tuple[str, int] | None:
    """The message and status of an error that a server reports in a body or record; None if it
    reports none. Servers write it as `error.message`, `error`, `message` or `detail`."""
    try:
        value = _ANY.decode(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return None
    if not isinstance(value, dict):
        return None
    error = value.get("error")
    if error is None and value.get("object") != "error" and "detail" not in value:
        return None
    inner = error if isinstance(error, dict) else value
    message = error if isinstance(error, str) else inner.get("message") or inner.get("detail")
    code = inner.get("code")
    status = code if isinstance(code, int) and 400 <= code <= 599 else 502
    return _shown(message if isinstance(message, str) else "the endpoint reports an error"), status


def _shown(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text[:_MESSAGE_MAX])

"""Collect what every writer of answers needs: counts, the end, and which events to withhold."""

from collections.abc import Iterable

import msgspec

from olla.translation.answer import (
    ArgumentsDelta,
    CallBegin,
    CallEnd,
    Event,
    Failed,
    Finish,
    FinishReason,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from olla.translation.codec import Reply
from olla.translation.conversation import Reasoning

__all__ = ["Ledger", "WholeAnswer", "WholeCall", "merged_usage"]

_NO_USAGE = Usage()


def merged_usage(before: Usage, now: Usage) -> Usage:
    """The last known value of each count."""
    known = {
        name: value for name in Usage.__struct_fields__ if (value := getattr(now, name)) is not None
    }
    return msgspec.structs.replace(before, **known) if known else before


class Ledger:
    """Follows the events of one answer, and passes those on that the client wants.

    Withheld are reasoning that the client has switched off, and all calls but the first if it
    allows one at a time: not every server obeys either.
    """

    __slots__ = ("_hidden", "_one_call", "deltas", "failure", "finish", "usage")

    def __init__(self, reply: Reply) -> None:
        reasoning: Reasoning = reply.conversation.reasoning
        self._hidden = reasoning.hidden or reasoning.enabled is False
        self._one_call = reply.conversation.parallel_calls is False
        self.usage = _NO_USAGE
        self.finish: Finish | None = None
        self.failure: Failed | None = None
        self.deltas = 0
        """Pieces of output so far: about one a token, where the server does not count."""

    def wanted(self, events: Iterable[Event]) -> list[Event]:
        """The events that the client gets. Counts go to `usage`, the end to `finish`."""
        found: list[Event] = []
        for event in events:
            match event:
                case Usage():
                    self.usage = merged_usage(self.usage, event)
                case ThinkingDelta():
                    self.deltas += 1
                    if not self._hidden:
                        found.append(event)
                case CallBegin() | ArgumentsDelta() | CallEnd():
                    self.deltas += 1
                    if not self._one_call or event.call == 0:
                        found.append(event)
                case TextDelta():
                    self.deltas += 1
                    found.append(event)
                case Finish():
                    self.finish = event
                    found.append(event)
                case Failed():
                    self.failure = event
                    found.append(event)
                case _:
                    found.append(event)
        return found

    @property
    def reason(self) -> FinishReason:
        """Why the answer ended."""
        return self.finish.reason if self.finish is not None else FinishReason.STOP

    @property
    def output_tokens(self) -> int:
        """As the server counted, else about."""
        told = self.usage.output_tokens
        return self.deltas if told is None else told


class WholeCall(msgspec.Struct):
    """A complete call of an answer."""

    id: str
    name: str
    arguments: str


class WholeAnswer:
    """An answer as one object, for clients that want no stream."""

    __slots__ = ("_begun", "calls", "logprobs", "text", "thinking")

    def __init__(self) -> None:
        self.thinking = ""
        self.text = ""
        self.calls: list[WholeCall] = []
        self.logprobs: list[msgspec.Raw] = []
        self._begun: dict[int, CallBegin] = {}

    def add(self, events: Iterable[Event]) -> None:
        """Add what events contain."""
        texts: list[str] = []
        thoughts: list[str] = []
        for event in events:
            match event:
                case TextDelta():
                    texts.append(event.text)
                case ThinkingDelta():
                    thoughts.append(event.text)
                case CallBegin():
                    self._begun[event.call] = event
                case CallEnd():
                    begun = self._begun[event.call]
                    self.calls.append(WholeCall(begun.id, begun.name, event.arguments))
                case _:
                    pass
        self.text += "".join(texts)
        self.thinking += "".join(thoughts)

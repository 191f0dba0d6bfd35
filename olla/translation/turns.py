"""Puts messages into the order that chat servers take.

Templates of models demand that user and assistant alternate, that results follow their calls, and
that a system message comes first. Clients send several messages of one role, results after text,
and system messages in the middle. Moving one of those to the front would change the beginning of
the prompt and cost the whole prefix cache, so its text goes to the end of the user's turn.
"""

from collections.abc import Iterable

import msgspec

from olla.translation.conversation import Image, Message, Part, Role, Text, ToolResult

__all__ = ["Turns"]


class Turns:
    """Collects the messages of a conversation."""

    __slots__ = ("_folded", "_messages", "_parts", "_results", "_role")

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._role: Role | None = None
        self._parts: list[Part] = []
        self._results: list[ToolResult] = []
        self._folded: list[Text] = []
        """System texts of this turn."""

    def user(self, parts: Iterable[Text | Image | ToolResult]) -> None:
        """The user says something, or returns results of calls."""
        self._turn(Role.USER)
        for part in parts:
            if isinstance(part, ToolResult):
                self._results.append(part)
            else:
                self._parts.append(part)

    def system(self, text: str) -> None:
        """A system message in the middle."""
        if text:
            self._turn(Role.USER)
            self._folded.append(Text(text))

    def assistant(self, parts: Iterable[Part]) -> None:
        """The assistant says something, or calls tools."""
        self._turn(Role.ASSISTANT)
        self._parts += parts

    def break_turn(self) -> None:
        """End the turn, even if the next message has the same role."""
        self._turn(None)

    def finished(self, system: str = "") -> tuple[Message, ...]:
        """All messages, after a system message if there is one."""
        self._turn(None)
        first = [Message(Role.SYSTEM, (Text(system),))] if system else []
        return (*first, *self._messages)

    def _turn(self, role: Role | None) -> None:
        if role is self._role:
            return
        if self._role is Role.ASSISTANT:
            if self._parts:
                self._messages.append(Message(Role.ASSISTANT, tuple(self._parts)))
        elif self._role is Role.USER:
            self._end_user_turn()
        self._role = role
        self._parts, self._results, self._folded = [], [], []

    def _end_user_turn(self) -> None:
        results = self._results
        if results and self._folded and not self._parts:
            # A separate message of the user would end the turn of the model, which awaits results.
            last = results[-1]
            content = (*last.content, *self._folded)
            results = [*results[:-1], msgspec.structs.replace(last, content=content)]
        else:
            self._parts += self._folded
        self._messages += [Message(Role.TOOL, (each,)) for each in results]
        if self._parts:
            self._messages.append(Message(Role.USER, tuple(self._parts)))

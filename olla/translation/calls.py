"""Puts the fragments of tool calls together, however a server sends them.

Servers repeat ids and names, send the index or leave it out, send arguments as text or as an
object, and begin with arguments before the name is known. A call begins for the client once its id
and name are known.
"""

import msgspec

from olla.translation.answer import ArgumentsDelta, CallBegin, CallEnd, Event, Failed

__all__ = ["CALLS_MAX", "CallAssembler", "is_object"]

CALLS_MAX = 1_000
"""Calls in one answer. Models make some ten."""
ARGUMENTS_MAX = 16 * 1024 * 1024
"""Characters of the arguments of all calls of an answer."""
_NAME_MAX = 512

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])


def is_object(text: str) -> bool:
    """Whether a text is a JSON object."""
    try:
        _OBJECT.decode(text)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return False
    return True


class _Call:
    """One call. `number` is its place among those that began, None before."""

    __slots__ = ("id", "name", "number", "pieces")

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.number: int | None = None
        self.pieces: list[str] = []


class CallAssembler:
    """The calls of one answer. `prefix` names calls without an id: `{prefix}_{number}`."""

    __slots__ = ("_begun", "_by_index", "_calls", "_last", "_prefix", "_size")

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._last: _Call | None = None
        self._begun = 0
        self._size = 0

    @property
    def any(self) -> bool:
        """Whether a call has begun."""
        return self._begun > 0

    def fragment(
        self, index: int | None, id: str | None, name: str | None, arguments: str | None
    ) -> list[Event]:
        """The events of one fragment."""
        call = self._find(index, id)
        if call is None:
            return [Failed(f"the answer has more than {CALLS_MAX:,} tool calls")]
        if id and not call.id:
            call.id = id[:_NAME_MAX]
        if name and not call.name:
            call.name = name[:_NAME_MAX]
        if arguments:
            call.pieces.append(arguments)
            self._size += len(arguments)
            if self._size > ARGUMENTS_MAX:
                return [Failed("the arguments of the answer's tool calls are too long")]
        if call.number is not None:
            return [ArgumentsDelta(call.number, arguments)] if arguments else []
        if not call.name or not (call.id or arguments or index is None):
            return []
        return self._begin(call)

    def finish(self, *, cut: bool) -> list[Event]:
        """The ends of all calls. `cut`: the output limit ended the answer, so that the last call
        may be unfinished: it is given up, not repaired."""
        found: list[Event] = []
        for call in self._calls:
            if call.number is None:
                if not call.name:
                    if cut:
                        continue
                    return [*found, Failed("the endpoint sent a tool call without a name")]
                found += self._begin(call)
            assert call.number is not None
            arguments = "".join(call.pieces)
            if not arguments.strip():
                arguments = "{}"
                if cut and call is self._calls[-1]:
                    continue
                found.append(ArgumentsDelta(call.number, arguments))
            elif not is_object(arguments):
                if cut and call is self._calls[-1]:
                    continue
                message = f"the endpoint sent a call of tool '{call.name}' whose arguments are "
                return [*found, Failed(message + "not a JSON object")]
            found.append(CallEnd(call.number, arguments))
        return found

    def _find(self, index: int | None, id: str | None) -> _Call | None:
        """The call that a fragment belongs to: by its index, or else a new id begins a new one."""
        call = self._by_index.get(index) if index is not None else self._last
        if call is not None and index is None and id and call.id and id != call.id:
            call = next((each for each in self._calls if each.id == id), None)
        if call is None:
            if len(self._calls) >= CALLS_MAX:
                return None
            call = _Call()
            self._calls.append(call)
            if index is not None:
                self._by_index[index] = call
        self._last = call
        return call

    def _begin(self, call: _Call) -> list[Event]:
        call.number = self._begun
        self._begun += 1
        if not call.id:
            call.id = f"{self._prefix}_{call.number}"
        found: list[Event] = [CallBegin(call.number, call.id, call.name)]
        if call.pieces:
            found.append(ArgumentsDelta(call.number, "".join(call.pieces)))
        return found

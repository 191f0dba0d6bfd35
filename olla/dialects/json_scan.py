"""Finds the members of a JSON object and where their values stand, in steps that are short.

A body is read on the event loop, so nothing here takes long, whatever the body holds. The scan is a
generator that yields between steps, and no step runs Python code for each element: strings,
numbers and containers are passed over in C. Long strings are checked piece by piece and then left
out of an *abridged* copy, which msgspec reads value by value; how many containers and separators
may be left in that copy is bounded. Offsets refer to the body itself, whose bytes stay as they are.

Values are not decoded, and what a member means is known elsewhere.
"""

import re
from collections.abc import Generator, Iterator
from typing import Final, TypeVar

import msgspec

from olla.dialects.top_level import NotAnObject, TopLevel, without_surrogates

__all__ = [
    "MEMBERS_MAX",
    "OWN_LIMITS",
    "JsonObject",
    "ScanLimits",
    "TooComplex",
    "finished",
    "first_place",
    "scan_abridged",
    "scan_object",
]

T = TypeVar("T")
Steps = Generator[None, None, T]

MEMBERS_MAX = 1_000
"""Maximum members of the body itself. The longest requests have about sixty."""
_WINDOW = 16_384
"""Bytes read in one step, 50 µs. A long string ends it: of strings of 8 KB, half is read twice."""
_SLICE = 262_144
"""Bytes of a long string checked in one step: 1 ms at most."""
_BLOCK = 4_096
"""Bytes. A string that covers an aligned block of a window is long: so is any of 8 KB."""
_SPACE_MAX = 65_536
"""Bytes of white space in one place."""
_PATHOLOGICAL_NAME = 1_024
"""Escapes, and runs between them, in the name of a member."""
_TRUNCATED = "Input data was truncated"
_CONTAINERS = b"[{"
_SEPARATORS = b"[{,:\\"
_BACKSLASH, _U = 0x5C, 0x75
_SPACE = b" \t\n\r"

_RAW = msgspec.json.Decoder(msgspec.Raw)
_NAME = msgspec.json.Decoder(str)
_TRAILING = re.compile(r"JSON is malformed: trailing characters \(byte (\d+)\)")
"""How msgspec says where a value ends: with the place, from 1, of what follows it."""
_S = rb"[ \t\n\r]{0,%d}+" % _SPACE_MAX
_BEGIN = re.compile(_S + rb"\{" + _S + rb"(\})?")
_MEMBER = re.compile(
    rb'("(?:[^"\\]++|\\.){0,%d}+")' % _PATHOLOGICAL_NAME + _S + rb":" + _S, re.DOTALL
)
_PLAIN = re.compile(
    rb'"[ !#-\[\]-~]{0,512}+"|(?:true|false|null|-?(?:0|[1-9][0-9]{0,15}+))(?=[ \t\n\r,}])'
)
"""Values that are read by themselves sooner than msgspec can say where they end: 0.3 µs, not 2."""
_NEXT = re.compile(_S + rb"(?:(\})|," + _S + rb")")
_END = re.compile(_S + rb"\Z")
_SCALAR_MAX = 4_096
"""Bytes of a number. One of 95 MB took 280 ms in one step: it is read twice, in whole."""
_SCALAR = re.compile(rb"[^ \t\n\r,}]{0,%d}+" % (_SCALAR_MAX + 1))
_CLOSERS: Final = {0x22: b'"', 0x5B: b"]", 0x7B: b"}"}


class TooComplex(NotAnObject):
    """The body may be JSON, but reading it would take more work than any request needs."""


class ScanLimits(msgspec.Struct, frozen=True):
    """How much a body may hold beside long strings.

    `containers` are arrays and objects; `separators` are those and commas, colons and backslashes:
    each costs msgspec up to 10 ns. A body of up to `whole` bytes is not abridged, because its
    length bounds the work.
    """

    containers: int = 500_000
    separators: int = 8_000_000
    whole: int = 4 * 1024 * 1024


PROXIED_LIMITS = ScanLimits()
"""For bodies that are forwarded: 70 ms in one step for the worst body of 100 MB, 30 ms for 10
MB."""
OWN_LIMITS = ScanLimits(containers=5_000, separators=200_000, whole=0)
"""For olla's own APIs, which create Python objects from the body: 4 µs per message."""


class JsonObject:
    """An object as it was scanned.

    `members` are name, start and end of each value in `body`, in their order; a name may be there
    twice.
    """

    __slots__ = ("body", "members")

    def __init__(self, body: bytes, members: list[tuple[str, int, int]]) -> None:
        self.body = body
        self.members = members

    def fields(self) -> TopLevel:
        """The values as they stand in the body. Of a repeated name the last value counts."""
        view = memoryview(self.body)
        return {name: msgspec.Raw(view[start:end]) for name, start, end in self.members}

    def places(self, wanted: str) -> list[tuple[int, int]]:
        """Where the values of one name stand."""
        return [(start, end) for name, start, end in self.members if name == wanted]


def finished(steps: Steps[T]) -> T:
    """Run a scan to its end at once: for short bodies."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: T = done.value
            return found


def first_place(body: bytes, wanted: str) -> tuple[int, int] | None:
    """Where the value of a name stands first in a body that was read before; None where it has
    none. What comes after it is not looked at."""
    try:
        for name, start, end in _members(body):
            if name == wanted:
                return start, end
    except NotAnObject:
        pass  # half a surrogate pair stands before it
    return None


def scan_object(body: bytes, limits: ScanLimits = PROXIED_LIMITS) -> Steps[JsonObject]:
    """Scan a JSON object in UTF-8, a step at a time.

    Half a surrogate pair, which a client leaves behind that cuts text within an emoji, is accepted
    as Go's and Python's decoders accept it; msgspec does not.

    Raises:
        NotAnObject: it is none; the text says why.
        TooComplex: it holds more than `limits`.
    """
    found, _ = yield from scan_abridged(body, limits)
    return found


def scan_abridged(
    body: bytes, limits: ScanLimits = PROXIED_LIMITS
) -> Steps[tuple[JsonObject, bytes | bytearray]]:
    """The same, and the object once more with `x` in place of what each long string says: a string
    shorter than 4 KB is never long, one of 8 KB always.

    Raises:
        NotAnObject, TooComplex: see `scan_object`.
    """
    abridged: bytes | bytearray = body
    cuts: list[tuple[int, int]] = []
    if len(body) > limits.whole:
        abridged, cuts = yield from _abridged(body, limits)
    else:
        yield from _check_encoding(body)
    members: list[tuple[str, int, int]] = []
    try:
        for member in _members(abridged):
            members.append(member)
            yield
    except TooComplex:
        raise
    except NotAnObject:
        mended = yield from _mended(abridged)
        if mended is None:
            raise
        abridged = mended
        members.clear()
        for member in _members(abridged):
            members.append(member)
            yield
    return JsonObject(body, _placed(members, cuts) if cuts else members), abridged


# --- members ------------------------------------------------------------------------------------


def _members(data: bytes | bytearray) -> Iterator[tuple[str, int, int]]:
    """The members of an object one by one, each with where its value stands in `data`."""
    view = memoryview(data)
    match = _BEGIN.match(data)
    if match is None:
        raise NotAnObject(_what_else(data))
    at = match.end()
    over = match[1] is not None
    count = 0
    while not over:
        match = _MEMBER.match(data, at)
        if match is None:
            raise NotAnObject("the name of a member is expected, in quotes, and then a colon")
        name, start = _name(match[1]), match.end()
        match = _PLAIN.match(data, start)
        end = _value_end(data, view, start) if match is None else match.end()
        count += 1
        if count > MEMBERS_MAX:
            raise TooComplex(f"more than {MEMBERS_MAX:,} keys")
        yield name, start, end
        match = _NEXT.match(data, end)
        if match is None and _END.match(data, end) is not None:
            raise NotAnObject(_TRUNCATED)
        if match is None:
            raise NotAnObject("a comma or the end of the object is expected")
        at = match.end()
        over = match[1] is not None
    if _END.match(data, at) is None:
        raise NotAnObject("something follows its end")


def _what_else(data: bytes | bytearray) -> str:
    """Return why data is not the start of an object."""
    try:
        _RAW.decode(memoryview(data)[:_WINDOW])
    except (msgspec.MsgspecError, RecursionError) as error:
        return str(error)
    return "it is another value"


def _value_end(data: bytes | bytearray, view: memoryview, start: int) -> int:
    """Where the value that begins at `start` ends; something must follow it.

    Raises:
        NotAnObject: it is not a JSON value, or nothing follows it.
        TooComplex: it is nested too deeply, or a number that is too long.
    """
    closer = _CLOSERS.get(data[start]) if start < len(data) else None
    if closer is None:
        match = _SCALAR.match(data, start)
        if match is not None and match.end() - start > _SCALAR_MAX:
            raise TooComplex(f"a number or word of more than {_SCALAR_MAX:,} bytes")
    try:
        _RAW.decode(view[start:])
    except RecursionError:
        raise TooComplex("arrays and objects nested too deeply") from None
    except msgspec.MsgspecError as error:
        trailing = _TRAILING.fullmatch(str(error))
        if trailing is None:
            raise NotAnObject(str(error).partition(" (byte ")[0]) from None
        end = start + int(trailing[1]) - 1
    else:
        raise NotAnObject(_TRUNCATED)
    # White space after the value is no part of it.
    if closer is not None:
        return data.rfind(closer, start, end) + 1
    match = _SCALAR.match(data, start, end)
    return end if match is None else match.end()


def _name(quoted: bytes) -> str:
    try:
        return _NAME.decode(quoted)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotAnObject(str(error)) from None


def _placed(
    members: list[tuple[str, int, int]], cuts: list[tuple[int, int]]
) -> list[tuple[str, int, int]]:
    """The same members with their places in the body. `cuts` are places in the abridged copy, and
    how many bytes are missing there.

    Raises:
        TooComplex: a name is among them.
    """
    placed: list[tuple[str, int, int]] = []
    missing = at = 0
    for name, start, end in members:
        if at < len(cuts) and cuts[at][0] < start:
            raise TooComplex(f"a key of more than {_BLOCK:,} bytes")
        begin = start + missing
        while at < len(cuts) and cuts[at][0] < end:
            missing += cuts[at][1]
            at += 1
        placed.append((name, begin, end + missing))
    return placed


# --- long bodies --------------------------------------------------------------------------------


def _abridged(
    body: bytes, limits: ScanLimits
) -> Steps[tuple[bytes | bytearray, list[tuple[int, int]]]]:
    """The body without what its long strings say, which is checked; and where that is missing.

    What is kept is read here only as far as it takes to find the strings: quotes are counted.
    """
    size = len(body)
    copied: bytearray | None = None
    cuts: list[tuple[int, int]] = []
    kept = at = containers = separators = spaces = 0
    while at < size:
        end = min(at + _WINDOW, size)
        window = body[at:end]
        text = _without_escapes(window)
        found, blank = _long_string(text)
        spaces += blank
        if spaces * _BLOCK > _SPACE_MAX:
            raise TooComplex(f"more than {_SPACE_MAX:,} bytes of white space between its values")
        if found < 0:
            if end < size and text.count(b'"') & 1:
                end = at + text.rfind(b'"')  # the string that begins there is looked at next
        else:
            end = at + found
        window = window[: end - at]
        if not window.isascii():
            _decode(window)
        containers += len(window) - len(window.translate(None, _CONTAINERS))
        separators += len(window) - len(window.translate(None, _SEPARATORS))
        if containers > limits.containers or separators > limits.separators:
            raise TooComplex(
                f"more than {limits.containers:,} arrays and objects, or more than "
                f"{limits.separators:,} commas, colons and escapes outside of long strings"
            )
        at = end
        yield
        if found < 0:
            continue
        stop = yield from _string_end(body, at)
        if copied is None:
            copied = bytearray()
        yield from _append(copied, body, kept, at)
        cuts.append((len(copied), stop - at - 1))
        copied += b"x"
        kept, at = stop, stop + 1
    if copied is None:
        return body, cuts
    yield from _append(copied, body, kept, size)
    return copied, cuts


def _without_escapes(window: bytes) -> bytes:
    """The same bytes, where only quotes that begin or end a string are left. The window begins
    outside of strings, or within one but not within an escape."""
    if _BACKSLASH not in window:
        return window
    return window.replace(b"\\\\", b"__").replace(b'\\"', b"__")


def _long_string(text: bytes) -> tuple[int, int]:
    """Where in a window, which begins outside of strings, the first long one begins (-1 for
    nowhere); and how many blocks before it are nothing but white space."""
    quotes = counted = blank = 0
    for at in range(0, len(text) - _BLOCK + 1, _BLOCK):
        if text.find(b'"', at, at + _BLOCK) >= 0:
            continue
        start = text.rfind(b'"', 0, at) + 1
        quotes += text.count(b'"', counted, start)
        counted = start
        if quotes & 1:
            return start, blank
        if not text[at : at + _BLOCK].strip(_SPACE):
            blank += 1
    return -1, blank


def _string_end(body: bytes, at: int) -> Steps[int]:
    """Where the string ends whose text begins at `at`: the place of its closing quote."""
    size = len(body)
    while at < size:
        end = _cut(body, at, min(at + _SLICE, size))
        stop = body.find(b'"', at, end)
        if stop > at and body[stop - 1] == _BACKSLASH:
            found = _without_escapes(body[at:end]).find(b'"')
            stop = at + found if found >= 0 else -1
        _check_text(body[at : end if stop < 0 else stop])
        if stop >= 0:
            return stop
        at = end
        yield
    raise NotAnObject(_TRUNCATED)


def _cut(body: bytes, at: int, end: int) -> int:
    """The last place up to `end` that is neither within an escape nor within a letter. The text
    from `at` begins with neither."""
    if end == len(body):
        return end
    escape = body.rfind(b"\\", max(at, end - 6), end)
    if escape >= 0:
        run = escape + 1 - at - len(body[at : escape + 1].rstrip(b"\\"))
        if run & 1:
            return escape
    for back in range(4):
        if end - back > at and body[end - back] & 0xC0 != 0x80:
            return end - back
    return end


def _check_text(text: bytes) -> None:
    """Raises NotAnObject: it cannot stand in a string."""
    if not text.isascii():
        _decode(text)
    try:
        _RAW.decode(b'"%b"' % text)
    except msgspec.MsgspecError as error:
        try:
            _RAW.decode(b'"%b"' % without_surrogates(text))
        except msgspec.MsgspecError:
            raise NotAnObject(str(error).partition(" (byte ")[0]) from None


def _append(copied: bytearray, body: bytes, start: int, end: int) -> Steps[None]:
    while start < end:
        copied += body[start : min(start + _SLICE, end)]
        start += _SLICE
        yield


# --- encodings ----------------------------------------------------------------------------------


def _check_encoding(body: bytes) -> Steps[None]:
    """Raises NotAnObject: it is not UTF-8."""
    if body.isascii():
        return
    at, size = 0, len(body)
    while at < size:
        end = min(at + _SLICE, size)
        if end < size:
            for _ in range(3):
                end -= body[end] & 0xC0 == 0x80
        _decode(body[at:end])
        at = end
        yield


def _decode(text: bytes) -> None:
    try:
        text.decode()
    except UnicodeDecodeError:
        raise NotAnObject("it is not UTF-8") from None


def _mended(data: bytes | bytearray) -> Steps[bytearray | None]:
    """See `without_surrogates`; None when nothing changes. A copy is changed where it is."""
    mended = data if isinstance(data, bytearray) else bytearray()
    changed = False
    at, size = 0, len(data)
    while at < size:
        end = min(at + _SLICE, size)
        if end < size:
            end -= 2 if data[end - 1] == _U else data[end - 1] == _BACKSLASH
        before = bytes(data[at:end])
        after = without_surrogates(before)
        changed = changed or after != before
        mended[at:end] = after
        at = end
        yield
    return mended if changed else None

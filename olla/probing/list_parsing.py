"""Reads what endpoints tell of their models, with a bound on everything.

The only way by which an endpoint's own data come into olla. Numbers that no real server has are
taken as not told, names must be printable, lists are cut, and what is nested is trimmed, so that
nothing behind this module has to doubt what it gets: a size of 400 digits made one node take the
whole fleet down. Lenient to single entries, strict to the list as a whole.

Lists are read entry by entry, never as a whole: the functions are generators that yield after each
entry, see `slices`.
"""

import codecs
import json
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from math import isfinite
from typing import Any

import msgspec

from olla.fleet.endpoint import ModelFilter
from olla.fleet.model_names import DEFAULT_TAG, canonical_of_list, display
from olla.fleet.profiles import ListFormat
from olla.fleet.snapshot import Model, ResidentModel

__all__ = ["MODELS_MAX", "Listing", "first_entries", "models", "printable", "resident_models"]

MODELS_MAX = 10_000
"""Entries of one endpoint's list that are read."""
_INSTANCES_MAX = 256
"""Entries of what is in memory."""
_NAME_MAX = 512
"""Characters of a model's name, as many as requests may have."""
_ENTRY_MAX = 32_768
"""Characters of one entry's JSON."""
_WINDOW = 4_096
"""Characters in which the end of an entry is looked for first."""
_KEYS_BEFORE_MAX = 64
"""Keys of the whole answer that may come before its list."""
_INT_MAX = 2**53 - 1
"""What every client's JSON parser reads exactly; as bytes, nine petabytes."""
_INT_DIGITS = 17
_SECONDS_MAX = 253_402_300_799
"""The last second of the year 9999."""
_TEXT_MAX = 4_096
_ITEMS_MAX = 256
_DEPTH_MAX = 6
_VALUES_MAX = 1_000
"""Bounds of what is nested in an entry: characters of a text, items of a list or an object, levels,
and values in all."""
_FRACTION = re.compile(r"\.(\d{6})\d+")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_BLANKS = re.compile(r"[ \t\n\r]*")


class Listing(msgspec.Struct, frozen=True):
    """The models of a list by canonical name; `cut` says that the list has more."""

    models: Mapping[str, Model]
    cut: bool = False


def models(
    body: bytes, style: ListFormat, allowed: ModelFilter, *, more: bool = False
) -> Generator[None, None, Listing | None]:
    """The models of a list, those that the operator lets olla use.

    Entries without a usable name are passed over. `more` says that the body was cut. None when it
    is no list, or when none of its entries has a usable name.
    """
    found: dict[str, Model] = {}
    entries = _Entries(body, _SHAPES[style], MODELS_MAX, more=more)
    for entry in entries:
        yield
        if entry is not None and _passes(entry.name, allowed):
            fields = entry.fields
            found[canonical_of_list(entry.name)] = Model(
                name=entry.name,
                digest=_digest(fields.get("digest")),
                size=_whole(fields.get("size")),
                created=_created(fields),
                embedding=_embeds(fields),
                entry=entry.json(),
            )
    return Listing(found, entries.cut) if entries.usable else None


def resident_models(
    body: bytes, *, more: bool = False
) -> Generator[None, None, tuple[ResidentModel, ...] | None]:
    """The models in memory; None when the answer is no list of them, as with `models`."""
    found: list[ResidentModel] = []
    entries = _Entries(body, _SHAPES[ListFormat.OLLAMA], _INSTANCES_MAX, more=more)
    for entry in entries:
        yield
        if entry is not None:
            fields = entry.fields
            found.append(
                ResidentModel(
                    name=entry.name,
                    digest=_digest(fields.get("digest")),
                    size=_whole(fields.get("size")),
                    size_vram=_whole(fields.get("size_vram")),
                    context_length=_whole(fields.get("context_length")),
                    expires_at=_unix_seconds(fields.get("expires_at")),
                    entry=entry.json(),
                )
            )
    return tuple(found) if entries.usable else None


def first_entries(body: bytes, style: ListFormat, most: int) -> list[dict[str, Any]] | None:
    """The fields of the first entries of a list; None where it is none."""
    entries = _Entries(body, _SHAPES[style], most, more=True)
    found = [entry.fields for entry in entries if entry is not None]
    return found if entries.there else None


def printable(text: str, most: int) -> str:
    """A text of an endpoint's own as it may be shown and logged: on one line, and not too long."""
    text = text[:most]
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


# --- the list -------------------------------------------------------------------------------------


class _Unreadable(Exception):
    """What stands there is no JSON, or too long to be an entry."""


class _Entry:
    """An entry with a usable name, its fields trimmed."""

    __slots__ = ("fields", "name")

    def __init__(self, name: str, fields: dict[str, Any]) -> None:
        self.name = name
        self.fields = fields

    def json(self) -> bytes:
        """The fields as JSON."""
        return msgspec.json.encode(self.fields)


class _Entries:
    """The entries of a list, one by one: None for one that is of no use.

    Afterwards `there` says whether there is such a list, `usable` whether it can be taken for one
    of models, and `cut` that it has more than `most` entries, or more than came.
    """

    def __init__(self, body: bytes, shape: "_Shape", most: int, *, more: bool) -> None:
        self._body = body
        self._shape = shape
        self._most = most
        self._more = more
        self.there = False
        self.usable = False
        self.cut = False

    def __iter__(self) -> Iterator[_Entry | None]:
        named = count = 0
        shape = self._shape
        try:
            for value in self._values():
                count += 1
                if count > self._most:
                    self.cut = True
                    break
                name = shape.name(value) if isinstance(value, dict) else None
                named += name is not None
                yield None if name is None else _Entry(name, _trimmed(value, name, shape))
        except _Unreadable:
            if not self._more:
                self.there = False
                return
            self.cut = True
        self.usable = self.there and (named > 0 or count == 0)

    def _values(self) -> Iterator[Any]:
        try:
            text = codecs.utf_8_decode(self._body, "strict", not self._more)[0]
        except UnicodeDecodeError:
            raise _Unreadable from None
        at = self._start(text)
        if text.startswith("null", at):  # Ollama's /v1/models with no model
            self.there = True
            return
        at = _after(text, at, "[")
        self.there = True
        if text.startswith("]", at):
            return
        while True:
            value, at = _value(text, at)
            yield value
            if text.startswith("]", at):
                return
            at = _after(text, at, ",")

    def _start(self, text: str) -> int:
        """Where the value of the key stands."""
        at = _after(text, _blanks(text, 0), "{")
        for _ in range(_KEYS_BEFORE_MAX):
            name, at = _value(text, at)
            at = _after(text, at, ":")
            if name == self._shape.key:
                return at
            _, at = _value(text, at)
            at = _after(text, at, ",")
        raise _Unreadable


def _blanks(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    return at if match is None else match.end()


def _after(text: str, at: int, mark: str) -> int:
    """The position after a mark and the blanks that follow it."""
    if not text.startswith(mark, at):
        raise _Unreadable
    return _blanks(text, at + len(mark))


def _value(text: str, at: int) -> tuple[Any, int]:
    """The JSON value that stands there, and the position after it and its blanks.

    Only a window of the text is looked at, so that one value cannot become millions of objects.
    """
    for size in (_WINDOW, _ENTRY_MAX):
        window = text[at : at + size]
        try:
            value, length = _DECODER.raw_decode(window)
        except (ValueError, RecursionError):
            continue
        if length < len(window) or at + length == len(text):  # else a number might go on
            return value, _blanks(text, at + length)
    raise _Unreadable


def _int(digits: str) -> int | None:
    return int(digits) if len(digits) <= _INT_DIGITS else None


def _float(digits: str) -> float | None:
    value = float(digits)
    return value if isfinite(value) else None


_DECODER = json.JSONDecoder(parse_int=_int, parse_float=_float, parse_constant=lambda _: None)

# --- one entry ------------------------------------------------------------------------------------


def _trimmed(entry: dict[str, Any], name: str, shape: "_Shape") -> dict[str, Any]:
    """The fields of an entry: what is known has its type or is left out, the rest is trimmed."""
    trim = _Trim()
    fields: dict[str, Any] = {}
    for key, value in entry.items():
        if len(fields) >= _ITEMS_MAX:
            break
        read = shape.fields.get(key)
        if read is None:
            fields[trim.text(key)] = trim.value(value)
        elif (known := read(value)) is not None:
            fields[key] = known
        elif read is _usable:
            fields[key] = name
    return fields


class _Trim:
    """Trims nested values; `left` is how many more there may be."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = _VALUES_MAX

    def value(self, value: Any, depth: int = 0) -> Any:
        """The value, or None in the place of what is out of bounds."""
        self.left -= 1
        if self.left < 0 or value is None or value is True or value is False:
            return value if self.left >= 0 else None
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int):
            return value if -_INT_MAX <= value <= _INT_MAX else None
        if isinstance(value, float):
            return value
        if depth >= _DEPTH_MAX:
            return None
        if isinstance(value, list):
            return [self.value(each, depth + 1) for each in value[:_ITEMS_MAX]]
        items = list(value.items())[:_ITEMS_MAX]
        return {self.text(key): self.value(each, depth + 1) for key, each in items}

    def text(self, text: str) -> str:
        """The text, cut; half a surrogate pair, which no UTF-8 has, is replaced."""
        text = text[:_TEXT_MAX]
        try:
            text.encode()
        except UnicodeEncodeError:
            return text.encode("utf-8", "replace").decode()
        return text


def _usable(value: object) -> str | None:
    """The value as the name of a model; None when it is none."""
    if not isinstance(value, str) or len(value) > _NAME_MAX or not value.isprintable():
        return None
    return value if value.strip() else None


def _whole(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= _INT_MAX else None


def _seconds(value: object) -> int | None:
    if isinstance(value, float):
        value = int(value)
    whole = _whole(value)
    return whole if whole is not None and whole <= _SECONDS_MAX else None


def _text(value: object) -> str | None:
    return _Trim().text(value) if isinstance(value, str) else None


def _printable_text(value: object) -> str | None:
    return _usable(value)


def _texts(value: object) -> list[str] | None:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        return None
    return [_Trim().text(each) for each in value[:_ITEMS_MAX]]


def _moment(value: object) -> str | None:
    """A time as Go's clients parse it: one that they cannot parse makes them drop the list."""
    return value if _parsed(value) is not None and isinstance(value, str) else None


def _parsed(value: object) -> datetime | None:
    if not isinstance(value, str) or not _MOMENT.fullmatch(value):
        return None
    try:
        return datetime.fromisoformat(_FRACTION.sub(r".\1", value))
    except ValueError:
        return None


def _unix_seconds(value: object) -> float | None:
    """A time as Unix seconds; None for none, or for Go's year 1, which means "no time"."""
    moment = _parsed(value)
    if moment is None or moment.year == 1:
        return None
    try:
        return moment.astimezone(UTC).timestamp()
    except (ValueError, OverflowError):  # in another year, seen from Greenwich
        return None


def _details(value: object) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    found: dict[str, Any] = {}
    trim = _Trim()
    for key, each in list(value.items())[:_ITEMS_MAX]:
        read = _DETAILS.get(key)
        trimmed = trim.value(each) if read is None else read(each)
        if trimmed is not None or (read is None and each is None):
            found[trim.text(key)] = trimmed
    return found


def _digest(value: object) -> str | None:
    digest = _usable(value)
    return None if digest is None else digest.removeprefix("sha256:") or None


def _created(fields: Mapping[str, Any]) -> float:
    """When a model was last changed, as Unix seconds; 0 where nothing is told."""
    if "modified_at" in fields:
        return max(0.0, _unix_seconds(fields["modified_at"]) or 0.0)
    return float(_seconds(fields.get("created")) or 0)


def _embeds(fields: Mapping[str, Any]) -> bool:
    """Whether an entry says that the model only makes embeddings."""
    details = fields.get("details")
    family = details.get("family") if isinstance(details, dict) else None
    if isinstance(family, str) and "bert" in family.lower():
        return True
    return fields.get("capabilities") == ["embedding"]


def _passes(name: str, allowed: ModelFilter) -> bool:
    if not allowed.include and not allowed.exclude:
        return True
    shown = display(name).lower()
    spellings = {name.lower(), shown, shown.removesuffix(f":{DEFAULT_TAG}")}

    def matches(globs: tuple[str, ...]) -> bool:
        return any(fnmatchcase(each, glob.lower()) for glob in globs for each in spellings)

    return not matches(allowed.exclude) and (not allowed.include or matches(allowed.include))


class _Shape(msgspec.Struct, frozen=True):
    """How a kind of server lists its models: under which key, by which names, and with which
    fields. A typed client drops the whole merged list for one field of another type."""

    key: str
    names: tuple[str, ...]
    fields: Mapping[str, Callable[[object], Any]]

    def name(self, entry: Mapping[str, Any]) -> str | None:
        """The name of the model; None where the entry has none that can be used."""
        for key in self.names:
            name = _usable(entry.get(key))
            if name is not None:
                return name
        return None


_DETAILS: Mapping[str, Callable[[object], Any]] = {
    **dict.fromkeys(
        ("parent_model", "format", "family", "parameter_size", "quantization_level"), _text
    ),
    **dict.fromkeys(("context_length", "embedding_length"), _whole),
    "families": _texts,
}
_SHAPES = {
    ListFormat.OLLAMA: _Shape(
        "models",
        ("name", "model", "id"),
        {
            **dict.fromkeys(("name", "model"), _usable),
            **dict.fromkeys(("size", "size_vram", "context_length"), _whole),
            **dict.fromkeys(("remote_model", "remote_host"), _text),
            **dict.fromkeys(("modified_at", "expires_at"), _moment),
            "digest": _printable_text,
            "capabilities": _texts,
            "details": _details,
        },
    ),
    ListFormat.OPENAI: _Shape(
        "data",
        ("id", "name", "model"),
        {"id": _usable, "created": _seconds, **dict.fromkeys(("object", "owned_by"), _text)},
    ),
}

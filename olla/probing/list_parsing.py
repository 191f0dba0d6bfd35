"""Parse the lists of models that endpoints return, with a bound on everything.

This is the only way that data of endpoints enters olla. Numbers that no real server has count as
missing, names must be printable, lists are cut, and nested values are trimmed, so that no other
module has to validate them: a size of 400 digits once took the whole fleet down. Single entries are
parsed leniently, the list as a whole strictly.

Lists are parsed entry by entry: the functions are generators that yield after each entry, see
`slices`.
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
"""Entries read from one endpoint's list."""
_INSTANCES_MAX = 256
"""Entries read from the list of loaded models."""
_NAME_MAX = 512
"""Characters of a model name; the same limit as in requests."""
_ENTRY_MAX = 32_768
"""Characters of one entry's JSON."""
_WINDOW = 4_096
"""Characters in which the parser first looks for the end of an entry."""
_KEYS_BEFORE_MAX = 64
"""Keys that may precede the list in the body."""
_INT_MAX = 2**53 - 1
"""The largest integer that every client's JSON parser reads exactly; as bytes, nine petabytes."""
_INT_DIGITS = 17
_SECONDS_MAX = 253_402_300_799
"""The last second of the year 9999."""
_TEXT_MAX = 4_096
_ITEMS_MAX = 256
_DEPTH_MAX = 6
_VALUES_MAX = 1_000
"""Bounds on nested values in an entry: characters of a string, items of a list or an object, depth,
and total number of values."""
_FRACTION = re.compile(r"\.(\d{6})\d+")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_BLANKS = re.compile(r"[ \t\n\r]*")


class Listing(msgspec.Struct, frozen=True):
    """The models of a list by canonical name; `cut` says that the list was longer."""

    models: Mapping[str, Model]
    cut: bool = False


def models(
    body: bytes, style: ListFormat, allowed: ModelFilter, *, more: bool = False
) -> Generator[None, None, Listing | None]:
    """Parse a list of models, and keep those that the operator allows.

    Skips entries without a usable name. `more` says that the body was cut. Returns None if the body
    is not a list of models, or if no entry has a usable name.
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
                size=_count(fields.get("size")),
                created=_created(fields),
                embedding=_embeds(fields),
                entry=entry.json(),
            )
    return Listing(found, entries.cut) if entries.usable else None


def resident_models(
    body: bytes, *, more: bool = False
) -> Generator[None, None, tuple[ResidentModel, ...] | None]:
    """Parse the loaded models; return None if the body is not a list of models, as in `models`."""
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
                    size=_count(fields.get("size")),
                    size_vram=_count(fields.get("size_vram")),
                    context_length=_count(fields.get("context_length")),
                    expires_at=_unix_seconds(fields.get("expires_at")),
                    entry=entry.json(),
                )
            )
    return tuple(found) if entries.usable else None


def first_entries(body: bytes, style: ListFormat, most: int) -> list[dict[str, Any]] | None:
    """Return the fields of the first entries of a list; None if the body is not a list."""
    entries = _Entries(body, _SHAPES[style], most, more=True)
    found = [entry.fields for entry in entries if entry is not None]
    return found if entries.found else None


def printable(text: str, most: int) -> str:
    """Make text from an endpoint safe to show and log: printable, on one line, and cut."""
    text = text[:most]
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


# --- the list -------------------------------------------------------------------------------------


class _Unreadable(Exception):
    """The text is not JSON, or too long to be an entry."""


class _Entry:
    """An entry with a usable name and trimmed fields."""

    __slots__ = ("fields", "name")

    def __init__(self, name: str, fields: dict[str, Any]) -> None:
        self.name = name
        self.fields = fields

    def json(self) -> bytes:
        """Encode the fields as JSON."""
        return msgspec.json.encode(self.fields)


class _Entries:
    """Iterates over the entries of a list; unusable entries are None.

    After the iteration, `found` says whether the body has the list, `usable` whether it is a list
    of models, and `cut` whether it has more than `most` entries, or is incomplete.
    """

    def __init__(self, body: bytes, shape: "_Shape", most: int, *, more: bool) -> None:
        self._body = body
        self._shape = shape
        self._most = most
        self._more = more
        self.found = False
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
                self.found = False
                return
            self.cut = True
        self.usable = self.found and (named > 0 or count == 0)

    def _values(self) -> Iterator[Any]:
        try:
            text = codecs.utf_8_decode(self._body, "strict", not self._more)[0]
        except UnicodeDecodeError:
            raise _Unreadable from None
        at = self._start(text)
        if text.startswith("null", at):  # Ollama's /v1/models with no model
            self.found = True
            return
        at = _after(text, at, "[")
        self.found = True
        if text.startswith("]", at):
            return
        while True:
            value, at = _value(text, at)
            yield value
            if text.startswith("]", at):
                return
            at = _after(text, at, ",")

    def _start(self, text: str) -> int:
        """Return the position of the list."""
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
    """Return the position after a mark and the whitespace that follows it."""
    if not text.startswith(mark, at):
        raise _Unreadable
    return _blanks(text, at + len(mark))


def _value(text: str, at: int) -> tuple[Any, int]:
    """Parse the JSON value at a position; return it and the position after it and its whitespace.

    Parses a window of the text only, so that one value cannot become millions of objects.
    """
    for size in (_WINDOW, _ENTRY_MAX):
        window = text[at : at + size]
        try:
            value, length = _DECODER.raw_decode(window)
        except (ValueError, RecursionError):
            continue
        if length < len(window) or at + length == len(text):  # else a number might continue
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
    """Return the fields of an entry: known fields have the right type or are omitted, others are
    trimmed."""
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
        elif read is _name:
            fields[key] = name
    return fields


class _Trim:
    """Trims nested values; `left` is the number of values still allowed."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = _VALUES_MAX

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return the value, with None in place of everything out of bounds."""
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
        """Cut the text, and replace lone surrogates, which UTF-8 cannot encode."""
        text = text[:_TEXT_MAX]
        try:
            text.encode()
        except UnicodeEncodeError:
            return text.encode("utf-8", "replace").decode()
        return text


def _name(value: object) -> str | None:
    """Return the value if it is a usable model name, else None."""
    if not isinstance(value, str) or len(value) > _NAME_MAX or not value.isprintable():
        return None
    return value if value.strip() else None


def _count(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= _INT_MAX else None


def _seconds(value: object) -> int | None:
    if isinstance(value, float):
        value = int(value)
    count = _count(value)
    return count if count is not None and count <= _SECONDS_MAX else None


def _text(value: object) -> str | None:
    return _Trim().text(value) if isinstance(value, str) else None


def _printable_text(value: object) -> str | None:
    return _name(value)


def _texts(value: object) -> list[str] | None:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        return None
    return [_Trim().text(each) for each in value[:_ITEMS_MAX]]


def _timestamp(value: object) -> str | None:
    """Return a time if Go's clients can parse it; otherwise they reject the whole list."""
    return value if _parsed(value) is not None and isinstance(value, str) else None


def _parsed(value: object) -> datetime | None:
    if not isinstance(value, str) or not _TIMESTAMP.fullmatch(value):
        return None
    try:
        return datetime.fromisoformat(_FRACTION.sub(r".\1", value))
    except ValueError:
        return None


def _unix_seconds(value: object) -> float | None:
    """Convert a time to Unix seconds; None if it is missing, or for Go's year 1 ("no time")."""
    moment = _parsed(value)
    if moment is None or moment.year == 1:
        return None
    try:
        return moment.astimezone(UTC).timestamp()
    except (ValueError, OverflowError):  # the year is out of range in UTC
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
    digest = _name(value)
    return None if digest is None else digest.removeprefix("sha256:") or None


def _created(fields: Mapping[str, Any]) -> float:
    """Return when a model was last modified, in Unix seconds; 0 if unknown."""
    if "modified_at" in fields:
        return max(0.0, _unix_seconds(fields["modified_at"]) or 0.0)
    return float(_seconds(fields.get("created")) or 0)


def _embeds(fields: Mapping[str, Any]) -> bool:
    """Return whether an entry is an embedding-only model."""
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
    """How a type of server lists its models: the key of the list, the keys of the name, and the
    fields. A typed client rejects the whole merged list if one field has another type."""

    key: str
    names: tuple[str, ...]
    fields: Mapping[str, Callable[[object], Any]]

    def name(self, entry: Mapping[str, Any]) -> str | None:
        """Return the name of the model; None if the entry has no usable name."""
        for key in self.names:
            name = _name(entry.get(key))
            if name is not None:
                return name
        return None


_DETAILS: Mapping[str, Callable[[object], Any]] = {
    **dict.fromkeys(
        ("parent_model", "format", "family", "parameter_size", "quantization_level"), _text
    ),
    **dict.fromkeys(("context_length", "embedding_length"), _count),
    "families": _texts,
}
_SHAPES = {
    ListFormat.OLLAMA: _Shape(
        "models",
        ("name", "model", "id"),
        {
            **dict.fromkeys(("name", "model"), _name),
            **dict.fromkeys(("size", "size_vram", "context_length"), _count),
            **dict.fromkeys(("remote_model", "remote_host"), _text),
            **dict.fromkeys(("modified_at", "expires_at"), _timestamp),
            "digest": _printable_text,
            "capabilities": _texts,
            "details": _details,
        },
    ),
    ListFormat.OPENAI: _Shape(
        "data",
        ("id", "name", "model"),
        {"id": _name, "created": _seconds, **dict.fromkeys(("object", "owned_by"), _text)},
    ),
}

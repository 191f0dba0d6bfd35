"""Reading a file: YAML -> settings, with every problem at once and where it stands.

Finds the file, expands `${VAR}`, applies `OLLA_…` variables, and turns what pydantic found into
problems with file, line and the nearest known key.
"""

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec
import yaml
from pydantic import BaseModel, ValidationError

from olla.settings.foreign import FOREIGN, NOT_YET
from olla.settings.model import Settings

__all__ = ["Loaded", "Problem", "SettingsError", "load", "parse"]

_PLACES = ("config/olla.local.yaml", "config/olla.yaml", "olla.yaml")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_RESERVED = frozenset({"OLLA_CONFIG_FILE", "OLLA_HOME"})

Key = tuple[str | int, ...]


class Problem(msgspec.Struct, frozen=True):
    """Something about one key. `line` and `column` count from one; 0 where there is no place."""

    file: str
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class Loaded(msgspec.Struct, frozen=True):
    """Settings, where they come from, and what was noticed on the way."""

    settings: Settings
    notices: list[Problem]
    source: str


class SettingsError(Exception):
    """The settings cannot be used. `problems` are all that was found."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def load(path: Path | None, environ: Mapping[str, str]) -> Loaded:
    """Read a file; without one, the first of `OLLA_CONFIG_FILE`, `config/olla.local.yaml`,
    `config/olla.yaml` and `olla.yaml` that there is; else the defaults.

    Raises:
        SettingsError: it cannot be read or used.
    """
    if path is None and environ.get("OLLA_CONFIG_FILE"):
        path = Path(environ["OLLA_CONFIG_FILE"])
    if path is None:
        path = next((Path(place) for place in _PLACES if Path(place).is_file()), None)
    if path is None:
        return parse("", environ, "built-in defaults")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError([Problem(str(path), 0, 0, "", f"cannot be read: {reason}")]) from None
    return parse(text, environ, str(path))


def parse(text: str, environ: Mapping[str, str], file: str = "<string>") -> Loaded:
    """The settings in a YAML text.

    Raises:
        SettingsError: with every problem of the text.
    """
    reading = _Reading(file, environ)
    data = reading.read(text)
    reading.take_foreign(data)
    _override(data, environ, reading)
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        for each in error.errors():
            reading.add(_location(each["loc"], data), _explain(each))
    if settings is not None:
        reading.check_endpoints(settings)
    if reading.problems or settings is None:
        raise SettingsError(sorted(reading.problems, key=lambda each: (each.line, each.column)))
    return Loaded(settings, reading.notices, file)


class _Reading:
    """One text on its way to settings: where its keys stand, and what is wrong with it."""

    def __init__(self, file: str, environ: Mapping[str, str]) -> None:
        self._file = file
        self._environ = environ
        self._marks: dict[Key, tuple[int, int]] = {}
        self.problems: list[Problem] = []
        self.notices: list[Problem] = []

    def add(self, key: Key, message: str) -> None:
        self.problems.append(self._problem(key, message))

    def _problem(self, key: Key, message: str) -> Problem:
        known = key
        while known and known not in self._marks:
            known = known[:-1]
        line, column = self._marks.get(known, (0, 0))
        return Problem(self._file, line, column, _dotted(key), message)

    def read(self, text: str) -> dict[str, Any]:
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
            message = f"this is not YAML: {error.problem or error}"
            raise SettingsError([Problem(self._file, line, column, "", message)]) from None
        except yaml.YAMLError as error:
            message = f"this is not YAML: {error}"
            raise SettingsError([Problem(self._file, 0, 0, "", message)]) from None
        if node is None:
            return {}
        data = self._value(node, ())
        if not isinstance(data, dict):
            message = "the file must be a mapping with sections such as server and discovery"
            raise SettingsError([Problem(self._file, 1, 1, "", message)])
        return data

    def _value(self, node: yaml.Node, key: Key) -> Any:
        self._marks.setdefault(key, (node.start_mark.line + 1, node.start_mark.column + 1))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(each, (*key, at)) for at, each in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode) and "${" in node.value:
            return self._expanded(node, key)
        loader = yaml.SafeLoader("")
        try:
            return loader.construct_object(node, deep=True)
        except yaml.YAMLError as error:
            self.add(key, f"this value cannot be read: {error}")
            return None
        finally:
            loader.dispose()

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name_node, value_node in node.value:
            name = str(name_node.value)
            below = (*key, name)
            mark = (name_node.start_mark.line + 1, name_node.start_mark.column + 1)
            if name in found:
                first = self._marks[below][0]
                self.problems.append(
                    Problem(
                        self._file,
                        *mark,
                        _dotted(below),
                        f"the key stands here a second time; the first is in line {first}",
                    )
                )
                continue
            self._marks[below] = mark
            found[name] = self._value(value_node, below)
        return found

    def _expanded(self, node: yaml.ScalarNode, key: Key) -> Any:
        missing: list[str] = []

        def replaced(match: re.Match[str]) -> str:
            value = self._environ.get(match[1])
            if value is None or (value == "" and match[2] is not None):
                value = match[2]
            if value is None:
                missing.append(match[1])
                return ""
            return value

        text = _VARIABLE.sub(replaced, node.value)
        for name in missing:
            self.add(
                key,
                f"the variable {name} is not set; set it, or give a default: ${{{name}:-value}}",
            )
        if node.style in ("'", '"'):
            return text
        return yaml.safe_load(text) if "\n" not in text and ": " not in text else text

    def take_foreign(self, data: dict[str, Any]) -> None:
        """Take out keys that mean nothing here, and report them."""
        for name, what in NOT_YET.items():
            if name in data:
                del data[name]
                self.add((name,), f"this version does not have {what}; leave the section out")
        for pattern, instead in FOREIGN.items():
            for key in list(_matching(data, tuple(pattern.split(".")))):
                parent: Any = data
                for part in key[:-1]:
                    parent = parent[part]
                del parent[key[-1]]
                self.notices.append(self._problem(key, f"has no effect here: {instead}"))

    def check_endpoints(self, settings: Settings) -> None:
        """Names and addresses are unique."""
        names: dict[str, int] = {}
        urls: dict[str, int] = {}
        for at, endpoint in enumerate(settings.discovery.static.endpoints):
            key: Key = ("discovery", "static", "endpoints", at)
            name, url = endpoint.shown_name, endpoint.url.rstrip("/")
            if name in names:
                message = f"'{name}' is the name of endpoint {names[name] + 1} already"
                self.add((*key, "name"), message)
            if url in urls:
                message = f"'{url}' is the address of endpoint {urls[url] + 1} already"
                self.add((*key, "url"), message)
            names.setdefault(name, at)
            urls.setdefault(url, at)


def _dotted(key: Key) -> str:
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in key
    ).removeprefix(".")


def _matching(data: Any, pattern: tuple[str, ...], key: Key = ()) -> Iterator[Key]:
    """The keys of `data` that a pattern such as ("a", "*", "b") names."""
    if not pattern:
        yield key
    elif pattern[0] == "*" and isinstance(data, list):
        for at, each in enumerate(data):
            yield from _matching(each, pattern[1:], (*key, at))
    elif isinstance(data, dict) and pattern[0] in data:
        yield from _matching(data[pattern[0]], pattern[1:], (*key, pattern[0]))


def _location(loc: Key, data: Any) -> Key:
    """Where pydantic's location is in the file: without the marks of its own inner steps."""
    key: list[str | int] = []
    for part in loc:
        if isinstance(data, dict):
            key.append(part)
            data = data.get(part)
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            key.append(part)
            data = data[part]
    return tuple(key)


def _explain(error: Any) -> str:
    if error["type"] == "extra_forbidden":
        return "unknown key" + _hint(error["loc"])
    if error["type"] == "missing":
        return "this key is required"
    message = str(error["msg"]).removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _hint(loc: Key) -> str:
    known = _fields_at(loc[:-1])
    near = get_close_matches(str(loc[-1]), known, 1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known here: {', '.join(sorted(known))}" if known else ""


def _fields_at(loc: Key) -> list[str]:
    """The keys that may stand below a location."""
    model: Any = Settings
    for part in loc:
        if isinstance(part, int):
            continue
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return []
        field = model.model_fields.get(part)
        if field is None:
            return []
        model = _section_in(field.annotation)
    return list(model.model_fields) if model is not None else []


def _section_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _section_in(argument)
        if found is not None:
            return found
    return None


def _override(data: dict[str, Any], environ: Mapping[str, str], reading: _Reading) -> None:
    """Apply variables such as OLLA_SERVER_PORT."""
    paths = {"OLLA_" + "_".join(path).upper(): path for path in _scalar_paths(Settings, ())}
    for name, text in environ.items():
        path = paths.get(name)
        if path is None or name in _RESERVED:
            if path is None and name.startswith("OLLA_") and name not in _RESERVED:
                near = get_close_matches(name, list(paths), 1, cutoff=0.9)
                if near:
                    reading.notices.append(
                        Problem("environment", 0, 0, name, f"no such setting; {near[0]} is one")
                    )
            continue
        below: Any = data
        for part in path[:-1]:
            if not isinstance(below.get(part), dict):
                below[part] = {}
            below = below[part]
        try:
            below[path[-1]] = yaml.safe_load(text) if text.strip() else text
        except yaml.YAMLError:
            below[path[-1]] = text


def _scalar_paths(model: type[BaseModel], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, field in model.model_fields.items():
        section = _section_in(field.annotation)
        if section is None:
            yield (*path, name)
        elif isinstance(field.annotation, type):
            yield from _scalar_paths(section, (*path, name))

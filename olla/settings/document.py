"""Parse YAML text into plain data, and record the position of each key.

Scalars stay text until their key gives them a type, so that a token of digits or a name such as
`on` is not converted. Expands `${VAR}`, follows aliases and merge keys, and reports duplicate
keys. Does not know what the keys mean.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from olla.settings.problems import Key, Problem, SettingsError, dotted

__all__ = ["Document", "read_document"]

_VARIABLE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\})?")
_BARE_VARIABLE = re.compile(r"""[{\[].*[^'"\w]\$\{""")
_TAG = "tag:yaml.org,2002:"
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_SCALARS = frozenset(
    _TAG + name for name in ("str", "int", "float", "bool", "null", "timestamp", "value", "merge")
)
_VALUES_MAX = 100_000
"""A bound, because aliases can expand a small text without end."""


class Document:
    """The data of a file, with the positions of its keys and the problems found so far.

    `data` holds mappings, lists, strings and None. `marks` maps a key to its line and column, and
    `variables` a key to the environment variable that set it.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.data: dict[str, Any] = {}
        self.marks: dict[Key, tuple[int, int]] = {}
        self.variables: dict[Key, str] = {}
        self.problems: list[Problem] = []
        self.notices: list[Problem] = []

    def add(self, key: Key, message: str) -> None:
        """Report a problem: the file cannot be used."""
        self.problems.append(self._at(key, message))

    def note(self, key: Key, message: str) -> None:
        """Report a notice: the file can be used."""
        self.notices.append(self._at(key, message))

    def _at(self, key: Key, message: str) -> Problem:
        if key in self.variables:
            return Problem("environment", 0, 0, self.variables[key], message)
        known = key
        while known and known not in self.marks:
            known = known[:-1]
        return Problem(self.file, *self.marks.get(known, (0, 0)), dotted(key), message)

    def plain(self, key: Key, text: str) -> str:
        """Return `text`; report and replace lone surrogates, which UTF-8 cannot encode."""
        try:
            text.encode()
        except UnicodeEncodeError:
            self.add(key, "this is not valid Unicode text: it contains a lone surrogate")
            return text.encode("utf-8", "replace").decode()
        return text

    def endpoints(self) -> Iterator[tuple[Key, dict[str, Any]]]:
        """Yield the mapping of each endpoint, as written, with its key."""
        key: Key = ("discovery", "static", "endpoints")
        found: Any = self.data
        for part in key:
            found = found.get(part) if isinstance(found, dict) else None
        for at, each in enumerate(found if isinstance(found, list) else ()):
            if isinstance(each, dict):
                yield (*key, at), each


def read_document(text: str, environ: Mapping[str, str], file: str) -> Document:
    """Parse a YAML text. Problems of single values are recorded in the document.

    Raises:
        SettingsError: the text is not YAML, not a mapping, or expands without end.
    """
    document = Document(file)

    def unusable(line: int, column: int, message: str) -> SettingsError:
        return SettingsError([Problem(file, line, column, "", message)])

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = {} if node is None else _Builder(document, environ).value(node, ())
    except yaml.MarkedYAMLError as error:
        raise unusable(*_marked(error, text)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        message = f"this is not YAML: the character U+{code:04X} is not allowed"
        raise unusable(line, 1, message) from None
    except (RecursionError, _TooMuch):
        raise unusable(1, 1, "this is nested too deeply, or expands without end") from None
    if data is not None and not isinstance(data, dict):
        raise unusable(1, 1, "a file must be a mapping with sections such as server and discovery")
    document.data = data or {}
    return document


def _marked(error: yaml.MarkedYAMLError, text: str) -> tuple[int, int, str]:
    mark = error.problem_mark or error.context_mark
    message = ", ".join(part for part in (error.context, error.problem) if part)
    if isinstance(error, yaml.composer.ComposerError) and "alias" in message:
        # The message omits the name: it may be a password that begins with an asterisk.
        message = "quote values that begin with *"
    if mark is None:
        return 0, 0, f"this is not YAML: {message}"
    lines = text.splitlines()
    if mark.line < len(lines) and _BARE_VARIABLE.search(lines[mark.line]):
        message += '; quote variables within braces or brackets: "${NAME}"'
    return mark.line + 1, mark.column + 1, f"this is not YAML: {message}"


class _TooMuch(Exception):
    """The document has more than `_VALUES_MAX` values."""


class _Builder:
    """Converts YAML nodes to data."""

    def __init__(self, document: Document, environ: Mapping[str, str]) -> None:
        self._document = document
        self._environ = environ
        self._count = 0

    def value(self, node: yaml.Node, key: Key) -> Any:
        """Return the data of a node, and record its position in the document."""
        self._count += 1
        if self._count > _VALUES_MAX:
            raise _TooMuch
        self._document.marks.setdefault(key, _position(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(each, (*key, at)) for at, each in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)  # the only other kind of node
        return self._scalar(node, key)

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        for name_node, value_node in node.value:
            if name_node.tag == _TAG + "merge":
                merged.append(value_node)
                continue
            if not isinstance(name_node, yaml.ScalarNode):
                self._document.add(key, "a key must be a string, not a list or a mapping")
                continue
            name = self._document.plain(key, name_node.value)
            child = (*key, name)
            if name in found:
                first = self._document.marks[child][0]
                message = f"duplicate key; it is already set in line {first}: remove one"
                problem = Problem(
                    self._document.file, *_position(name_node), dotted(child), message
                )
                self._document.problems.append(problem)
                continue
            self._document.marks[child] = _position(name_node)
            found[name] = self.value(value_node, child)
        for base in merged:
            self._merge(base, key, found)
        return found

    def _merge(self, node: yaml.Node, key: Key, found: dict[str, Any]) -> None:
        """Add the keys of the bases that `<<` names; existing keys and earlier bases win."""
        if isinstance(node, yaml.SequenceNode):
            for each in node.value:
                self._merge(each, key, found)
            return
        if not isinstance(node, yaml.MappingNode):
            self._document.add((*key, "<<"), "only mappings can be merged; write <<: *name")
            return
        for name_node, value_node in node.value:
            if name_node.tag == _TAG + "merge":
                self._merge(value_node, key, found)
            elif isinstance(name_node, yaml.ScalarNode):
                name = self._document.plain(key, name_node.value)
                if name not in found:
                    child = (*key, name)
                    self._document.marks[child] = _position(name_node)
                    found[name] = self.value(value_node, child)

    def _scalar(self, node: yaml.ScalarNode, key: Key) -> str | None:
        if node.tag not in _SCALARS:
            # The message omits the tag: it may be a password that begins with an exclamation mark.
            self._document.add(key, "tags are not supported; quote values that begin with !")
        plain = node.style is None
        if plain and node.tag == _TAG + "null":
            return None
        if "${" not in node.value:
            return self._document.plain(key, node.value)
        text = self._document.plain(key, self._expanded(node.value, key))
        return None if plain and text in _NULLS else text

    def _expanded(self, text: str, key: Key) -> str:
        def replaced(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            name, default = match[1], match[2]
            if name is None:
                message = "write ${NAME} or ${NAME:-default}; $${ is a literal ${"
                self._document.add(key, message)
                return ""
            value = self._environ.get(name)
            if value is None or (value == "" and default is not None):
                value = default
            if value is None:
                self._document.add(
                    key,
                    f"the variable {name} is not set; set it, or add a default: ${{{name}:-value}}",
                )
            return value or ""

        return _VARIABLE.sub(replaced, text)


def _position(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1

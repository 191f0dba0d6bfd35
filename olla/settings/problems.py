"""Describe problems and notices about a configuration, each with its location."""

import msgspec

from olla.settings.masking import masked

__all__ = ["Key", "Problem", "SettingsError", "dotted"]

_SHOWN_MAX = 1000

Key = tuple[str | int, ...]
"""Path to a value from the root of the file: names, and list indexes from zero."""


class Problem(msgspec.Struct, frozen=True):
    """A problem or notice about one key.

    `line` and `column` count from one; 0 means that the location is unknown. For a value that
    came from an environment variable, `file` is `environment` and `key` is the variable's name.
    """

    file: str
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        """Return location, key and message on one line. All quoted URLs are masked."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        message = masked(self.message)
        text = f"{place}: {self.key}: {message}" if self.key else f"{place}: {message}"
        return _one_line(text)


def _one_line(text: str) -> str:
    """Escape line breaks and terminal control characters: the text quotes the file."""
    if len(text) > _SHOWN_MAX:
        text = f"{text[:_SHOWN_MAX]}…"
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


class SettingsError(Exception):
    """The settings are invalid. `problems` lists every problem that was found."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def dotted(key: Key) -> str:
    """Return the key in dotted notation, such as `discovery.static.endpoints[0].url`."""
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in key
    ).removeprefix(".")

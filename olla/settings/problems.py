"""What is wrong with a configuration, or worth knowing: one record a finding, with its place."""

import msgspec

from olla.settings.masking import masked

__all__ = ["Key", "Problem", "SettingsError", "dotted"]

_SHOWN_MAX = 1000

Key = tuple[str | int, ...]
"""The way to a value from the root of the file: names, and places in lists from zero."""


class Problem(msgspec.Struct, frozen=True):
    """Something about one key. `line` and `column` count from one; 0 where there is no place.

    `file` is `environment` for what a variable says, and `key` then the variable's name.
    """

    file: str
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        """The finding on one line. URLs that it quotes are masked, whatever key they are at."""
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        message = masked(self.message)
        text = f"{place}: {self.key}: {message}" if self.key else f"{place}: {message}"
        return _one_line(text)


def _one_line(text: str) -> str:
    """`text` without what would break a line, or command a terminal: it quotes what was written
    in a file."""
    if len(text) > _SHOWN_MAX:
        text = f"{text[:_SHOWN_MAX]}…"
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


class SettingsError(Exception):
    """The settings cannot be used. `problems` are all that was found."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def dotted(key: Key) -> str:
    """The key as people write it: `discovery.static.endpoints[0].url`."""
    return "".join(
        f"[{part}]" if isinstance(part, int) else f".{part}" for part in key
    ).removeprefix(".")

"""From a file to settings: finds it, reads it, and reports every problem of it at once."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
from pydantic import ValidationError

from olla.settings.checks import check_all
from olla.settings.compatibility import take_out
from olla.settings.document import read_document
from olla.settings.environment import override
from olla.settings.exposure import exposures
from olla.settings.messages import explain
from olla.settings.model import Settings
from olla.settings.problems import Problem, SettingsError
from olla.settings.surfaces import taken_over

__all__ = ["LoadedSettings", "load", "parse"]

_PLACES = ("config/olla.local.yaml", "config/olla.yaml", "olla.yaml")
_TEXT_MAX = 4 * 1024 * 1024
"""Characters."""


class LoadedSettings(msgspec.Struct, frozen=True):
    """Settings, where they come from, and what was noticed on the way."""

    settings: Settings
    notices: list[Problem]
    source: str


def load(path: Path | None, environ: Mapping[str, str]) -> LoadedSettings:
    """Read a file; without one, the first of `OLLA_CONFIG_FILE`, `config/olla.local.yaml`,
    `config/olla.yaml` and `olla.yaml` that there is; else the defaults.

    Raises:
        SettingsError: it cannot be read or used.
    """
    wanted_by = ""
    if path is None and environ.get("OLLA_CONFIG_FILE"):
        path, wanted_by = Path(environ["OLLA_CONFIG_FILE"]), " (OLLA_CONFIG_FILE names it)"
    if path is None:
        path = next((Path(place) for place in _PLACES if Path(place).is_file()), None)
    if path is None:
        return parse("", environ, "built-in defaults")
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(_TEXT_MAX + 1)
    except FileNotFoundError:
        reason = "there is no such file; name one that exists, or none for the defaults"
    except UnicodeDecodeError:
        reason = "it is not UTF-8 text"
    except OSError as error:
        reason = f"it cannot be read: {error.strerror}"
    except ValueError as error:  # a name with a NUL
        reason = f"it cannot be read: {error}"
    else:
        if len(text) <= _TEXT_MAX:
            return parse(text, environ, str(path))
        reason = "it is too long for a configuration"
    raise SettingsError([Problem(str(path), 0, 0, "", reason + wanted_by)])


def parse(text: str, environ: Mapping[str, str], file: str = "<string>") -> LoadedSettings:
    """The settings in a YAML text.

    Raises:
        SettingsError: with every problem of the text.
    """
    document = read_document(text, environ, file)
    take_out(document)
    override(document, environ)
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(document.data)
    except ValidationError as error:
        for each in error.errors():
            document.add(*explain(each, document.data))
    check_all(document)
    if document.problems or settings is None:
        raise SettingsError(_in_order(document.problems))
    for key, message in (*taken_over(settings.surfaces), *exposures(settings)):
        document.note(key, message)
    return LoadedSettings(settings, _in_order(document.notices), file)


def _in_order(found: list[Problem]) -> list[Problem]:
    """As they stand in the file, each said once."""
    return sorted(dict.fromkeys(found), key=lambda each: (each.line, each.column))

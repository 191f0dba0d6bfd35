"""Find, read and validate the configuration file, and report all of its problems at once."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
from pydantic import ValidationError

from olla.settings.checks import check_all
from olla.settings.compatibility import remove_unsupported
from olla.settings.document import read_document
from olla.settings.environment import override
from olla.settings.exposure import exposures
from olla.settings.messages import explain
from olla.settings.model import Settings
from olla.settings.problems import Problem, SettingsError
from olla.settings.surfaces import shadowed_paths

__all__ = ["LoadedSettings", "load", "parse"]

_PLACES = ("config/olla.local.yaml", "config/olla.yaml", "olla.yaml")
_TEXT_MAX = 4 * 1024 * 1024
"""In characters."""


class LoadedSettings(msgspec.Struct, frozen=True):
    """Valid settings, the notices about them, and the name of their source."""

    settings: Settings
    notices: list[Problem]
    source: str


def load(path: Path | None, environ: Mapping[str, str]) -> LoadedSettings:
    """Load the file at `path`.

    Without a path, load the file that `OLLA_CONFIG_FILE` names, else the first that exists of
    `config/olla.local.yaml`, `config/olla.yaml` and `olla.yaml`, else the built-in defaults.

    Raises:
        SettingsError: the file cannot be read, or has problems.
    """
    named_by = ""
    if path is None and environ.get("OLLA_CONFIG_FILE"):
        path, named_by = Path(environ["OLLA_CONFIG_FILE"]), " (from OLLA_CONFIG_FILE)"
    if path is None:
        path = next((Path(place) for place in _PLACES if Path(place).is_file()), None)
    if path is None:
        return parse("", environ, "built-in defaults")
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(_TEXT_MAX + 1)
    except FileNotFoundError:
        reason = "file not found; name an existing file, or omit it to use the defaults"
    except UnicodeDecodeError:
        reason = "the file is not UTF-8 text"
    except OSError as error:
        reason = f"cannot read the file: {error.strerror}"
    except ValueError as error:  # the name contains a NUL
        reason = f"cannot read the file: {error}"
    else:
        if len(text) <= _TEXT_MAX:
            return parse(text, environ, str(path))
        reason = f"the file is longer than {_TEXT_MAX} characters"
    raise SettingsError([Problem(str(path), 0, 0, "", reason + named_by)])


def parse(text: str, environ: Mapping[str, str], file: str = "<string>") -> LoadedSettings:
    """Parse settings from a YAML text.

    Raises:
        SettingsError: the text is invalid; the error lists every problem.
    """
    document = read_document(text, environ, file)
    remove_unsupported(document)
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
    for key, message in (*shadowed_paths(settings.surfaces), *exposures(settings)):
        document.note(key, message)
    return LoadedSettings(settings, _in_order(document.notices), file)


def _in_order(problems: list[Problem]) -> list[Problem]:
    """Return the problems in the order of the file, without duplicates."""
    return sorted(dict.fromkeys(problems), key=lambda each: (each.line, each.column))

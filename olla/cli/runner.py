"""What commands that run a router share: reading the file, the event loop, how errors end.

Exit status 1: it could not start. 2: the settings or the command line are wrong. 130: Ctrl-C
before it had started.
"""

import asyncio
import os
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NoReturn

import click

from olla.settings import LoadedSettings, Problem, SettingsError, load

__all__ = ["exit_with", "load_or_exit", "run"]


def load_or_exit(path: Path | None, environ: dict[str, str] | None = None) -> LoadedSettings:
    """The settings; with problems, prints all of them and exits with 2."""
    try:
        return load(path, os.environ if environ is None else environ)
    except SettingsError as error:
        exit_with(error.problems)


def exit_with(problems: list[Problem]) -> NoReturn:
    """Print what is wrong with the settings, and exit with 2."""
    for problem in problems:
        click.echo(str(problem), err=True)
    click.echo(f"{len(problems)} problem{'s' if len(problems) > 1 else ''} found", err=True)
    sys.exit(2)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run to the end, on uvloop."""
    import uvloop

    from olla.app import StartError

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)
    except SettingsError as error:
        exit_with(error.problems)
    except StartError as error:
        click.echo(f"olla: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)

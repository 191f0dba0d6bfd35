"""Helpers for commands that run a router: load the file, run the event loop, report errors.

Exit status 1: the router could not start. 2: the settings or the command line are invalid. 130:
Ctrl-C before it had started.
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
    """Load the settings; print all problems and exit with 2 if there are any."""
    try:
        return load(path, os.environ if environ is None else environ)
    except SettingsError as error:
        exit_with(error.problems)


def exit_with(problems: list[Problem]) -> NoReturn:
    """Print the problems of the settings, and exit with 2."""
    for problem in problems:
        click.echo(str(problem), err=True)
    click.echo(f"{len(problems)} problem{'s' if len(problems) > 1 else ''} found", err=True)
    sys.exit(2)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end, on uvloop."""
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

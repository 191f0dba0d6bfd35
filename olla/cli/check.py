"""`olla check`: validate a configuration file and show the settings in force."""

import json
from pathlib import Path

import click

from olla.cli.runner import exit_with, load_or_exit

__all__ = ["command"]


@click.command("check")
@click.option(
    "--config",
    "-c",
    type=click.Path(path_type=Path),
    help="Configuration file; by default the one that `olla serve` would use.",
)
@click.option("--schema", is_flag=True, help="Print a JSON Schema for editors instead.")
def command(config: Path | None, schema: bool) -> None:
    """Check a configuration file.

    Exit status 0: the file is valid, and the settings in force are printed (secrets masked). 2: the
    file is invalid, and every problem is printed with its line.

    \b
    Examples:
      olla check --config fleet.yaml
      olla check --schema > olla.schema.json
    """
    if schema:
        from olla.settings import Settings

        click.echo(json.dumps(Settings.model_json_schema(), indent=2, ensure_ascii=False))
        return
    loaded = load_or_exit(config)
    from olla.settings import SettingsError, effective_yaml, endpoint_specs

    try:
        endpoint_specs(loaded.settings)
    except SettingsError as error:
        exit_with(error.problems)
    for notice in loaded.notices:
        click.echo(f"note: {notice}", err=True)
    click.echo(f"# in force, from {loaded.source}")
    click.echo(effective_yaml(loaded.settings), nl=False)

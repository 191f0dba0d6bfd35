"""The `olla` command: one module a subcommand, imported only when it runs."""

import importlib
import sys
from pathlib import Path
from typing import Any

import click

__all__ = ["main"]

_COMMANDS = {
    "serve": ("serve", "Run the router."),
    "check": ("check", "Check a configuration file."),
    "demo": ("demo", "Run the router in front of three simulated nodes."),
    "simulate-node": ("simulate_node", "Run one simulated Ollama node."),
    "replay": ("replay", "Play a decision log again under other policies."),
    "status": ("status", "Show the fleet, from a running router."),
    "keys": ("keys", "Make, list and revoke API keys."),
}


class _Commands(click.Group):
    """Imports a command's module when it is asked for: `olla --version` should be quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"olla.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """The command that the arguments begin with, or an error that names the nearest."""
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], list(_COMMANDS), 1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            ctx.fail(f"No such command '{args[0]}'.{hint}")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command. Output that cannot be written, to a full disk for instance, is an error
        in one line, not a traceback."""
        try:
            try:
                return super().main(*args, **options)
            finally:
                sys.stdout.flush()
        except OSError as error:
            sys.stdout = None  # else the interpreter tries it once more
            click.echo(f"olla: the output cannot be written: {error.strerror or error}", err=True)
            sys.exit(1)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands with a line each, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from olla import __version__

        click.echo(f"olla {__version__}")
        ctx.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Without a command, olla runs the router as `olla serve` does. "
    "olla COMMAND --help tells more.",
    invoke_without_command=True,
)
@click.option(
    "--config",
    "-c",
    type=click.Path(path_type=Path),
    help="Configuration file, if no command is given; see `olla serve --help`.",
)
@click.option(
    "--validate-config",
    is_flag=True,
    help="Check the configuration file as `olla check` does, and exit.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Show the version.",
)
@click.pass_context
def main(context: click.Context, config: Path | None, validate_config: bool) -> None:
    """One address for a fleet of Ollama servers.

    \b
    Examples:
      olla demo                         try it, with nothing else needed
      olla check --config fleet.yaml    is this file right?
      olla serve --config fleet.yaml    run the router
      olla status                       what is the fleet doing?
    """
    if context.invoked_subcommand is not None:
        if config is not None or validate_config:
            context.fail("-c and --validate-config belong after the command")
        return
    if validate_config:
        from olla.cli.check import command as check

        context.invoke(check, config=config)
    else:
        from olla.cli.serve import command as serve

        context.invoke(serve, config=config)

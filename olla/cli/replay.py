"""`olla replay`: show how other policies would have handled the requests of a decision log."""

from pathlib import Path

import click

from olla.routing.policies import POLICIES

__all__ = ["command"]


@click.command("replay")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--policy",
    "-p",
    "names",
    multiple=True,
    type=click.Choice(list(POLICIES)),
    help="Policy to replay; can be repeated. Default: all.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def command(file: Path, names: tuple[str, ...], as_json: bool) -> None:
    """Replay a decision log under other policies.

    FILE is a log written by `routing.decision_log`. The fleet is simulated from the estimates that
    the router had learned. Therefore compare the replayed policies with each other, and the replay
    of the recorded policy with the recording.

    \b
    Examples:
      olla replay decisions.jsonl
      olla replay decisions.jsonl --policy least-connections
    """
    import msgspec

    from olla.simulation.replay import JournalError, read_journal, recorded, replay

    try:
        with file.open("rb") as lines:
            journal = read_journal(lines)
    except JournalError as error:
        raise click.ClickException(f"{file}: {error}") from None
    rows = [recorded(journal)]
    for name in names or POLICIES:
        click.echo(f"replaying {len(journal.requests)} requests: {name}", err=True)
        rows.append(replay(journal, POLICIES[name]))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2).decode())
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(caption="seconds to the first token; whole: to the last token")
    table.add_column("policy")
    for column in ("mean", "p50", "p95", "p99", "whole", "loads", "no answer"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row.name,
            *(f"{value:.2f}" for value in (row.mean, row.p50, row.p95, row.p99, row.whole)),
            "" if row.loads is None else str(row.loads),
            f"{row.unanswered} of {row.requests}",
        )
    Console(width=100 if not Console().is_terminal else None).print(table)

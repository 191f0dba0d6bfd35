"""`olla status`: the fleet as a running router sees it."""

import http.client
import json
import sys
import urllib.error
import urllib.request
from typing import Any

import click

__all__ = ["command"]

_TIMEOUT = 5.0


@click.command("status")
@click.option(
    "--url", default="http://localhost:40114", show_default=True, help="The router's address."
)
@click.option("--json", "as_json", is_flag=True, help="Print what the router said, unchanged.")
def command(url: str, as_json: bool) -> None:
    """Show the endpoints of a running router: health, models in memory, requests in flight."""
    address = f"{url.rstrip('/')}/internal/status"
    if not address.startswith(("http://", "https://")):
        raise click.BadParameter("it must begin with http:// or https://", param_hint="--url")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=_TIMEOUT) as response:
            text = response.read()
        status: dict[str, Any] = json.loads(text)
        status["endpoints"]
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        click.echo(f"olla: no router answers at {address}: {reason}", err=True)
        sys.exit(1)
    except (ValueError, KeyError, TypeError):
        click.echo(f"olla: what answers at {address} is no olla router", err=True)
        sys.exit(1)
    if as_json:
        click.echo(text.decode())
    else:
        _show(status)


def _show(status: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    requests = status["requests"]
    console = Console(soft_wrap=False)
    console.print(
        f"olla {status['version']}, {status['status']}, policy {status['policy']}, "
        f"{requests['total']} requests, {requests['failures']} failures, "
        f"{requests['in_flight']} in flight",
        highlight=False,
    )
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("endpoint", "type", "status", "in flight", "models", "in memory", "remark"):
        table.add_column(name, overflow="fold")
    for endpoint in status["endpoints"]:
        colour = "green" if endpoint["routable"] else "red"
        table.add_row(
            endpoint["name"],
            endpoint["type"],
            f"[{colour}]{endpoint['status']}[/]",
            str(endpoint["in_flight"]),
            str(endpoint["models"]),
            ", ".join(each["name"] for each in endpoint["resident"]) or "-",
            endpoint["reason"] or "",
        )
    console.print(table)

"""`olla simulate-node`: run a single simulated Ollama server."""

import asyncio
import signal

import click

from olla.cli.runner import run

__all__ = ["command"]


@click.command("simulate-node")
@click.option("--host", default="127.0.0.1", show_default=True, help="Interface to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=11434,
    show_default=True,
    help="Port to listen on; 0 picks a free port.",
)
@click.option("--name", default="node", show_default=True, help="Name of the node.")
@click.option(
    "--model",
    "models",
    multiple=True,
    help="Model of the node; can be repeated. Default: llama3.2, mistral and nomic-embed-text.",
)
@click.option("--vram", default="24GB", show_default=True, help="Memory for models.")
@click.option(
    "--num-parallel",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Concurrent requests per loaded model.",
)
@click.option(
    "--time-scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Real seconds per simulated second.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the generated text.")
def command(
    host: str,
    port: int,
    name: str,
    models: tuple[str, ...],
    vram: str,
    num_parallel: int,
    time_scale: float,
    seed: int,
) -> None:
    """Run a simulated Ollama node, with its scheduling, memory and API, and generated text.

    Switch faults on at run time with PUT /_simulation/faults.

    \b
    Example:
      olla simulate-node --port 11435 --model llama3.2 --model gemma2:27b --vram 16GB
    """
    from olla.settings.values import size

    try:
        memory = size(vram)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--vram") from None
    from olla.simulation.server import NodeOptions

    try:
        options = NodeOptions(
            name=name,
            models=models or ("llama3.2:latest", "mistral:latest", "nomic-embed-text:latest"),
            vram=memory,
            num_parallel=num_parallel,
            time_scale=time_scale,
            seed=seed,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    run(_simulate(options, host, port))


async def _simulate(options: object, host: str, port: int) -> None:
    from olla.app import StartError
    from olla.simulation.server import SimulatedNode

    node = SimulatedNode(options)  # type: ignore[arg-type]
    try:
        await node.start(host, port)
    except OSError as error:
        raise StartError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
    stopping = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stopping.set)
    click.echo(f"simulated Ollama node at {node.url}")
    await stopping.wait()
    await node.stop()

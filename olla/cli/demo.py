"""`olla demo`: run the router in front of simulated nodes, without any other server."""

import sys
from math import isfinite
from pathlib import Path

import click

from olla.cli.runner import run

__all__ = ["command"]

_MODELS = (
    ("llama3.2:latest", "mistral:latest", "nomic-embed-text:latest"),
    ("llama3.2:latest", "codellama:7b", "llama2:latest"),
    ("mistral:latest", "qwen2.5:7b", "nomic-embed-text:latest"),
)
"""Models of the nodes; the fourth node has those of the first, and so on."""
_GIB = 1024**3
_VRAM = (24 * _GIB, 12 * _GIB, 16 * _GIB)


@click.command("demo")
@click.option("--host", default="127.0.0.1", show_default=True, help="Interface to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=40114,
    show_default=True,
    help="Port to listen on; 0 picks a free port.",
)
@click.option(
    "--nodes",
    type=click.IntRange(1, 50),
    default=3,
    show_default=True,
    help="Number of simulated nodes.",
)
@click.option(
    "--time-scale",
    type=click.FloatRange(min=0, min_open=True),
    default=0.2,
    show_default=True,
    help="Real seconds per simulated second.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Seed of the generated text.")
def command(host: str, port: int, nodes: int, time_scale: float, seed: int) -> None:
    """Run the router in front of simulated Ollama nodes, and show commands to try.

    \b
    Examples:
      olla demo
      olla demo --nodes 8 --time-scale 1 --port 8080
    """
    if not isfinite(time_scale):
        raise click.BadParameter("must be a finite number", param_hint="--time-scale")
    run(_demo(host, port, nodes, time_scale, seed))


async def _demo(host: str, port: int, nodes: int, time_scale: float, seed: int) -> None:
    import yaml

    from olla.app import serve
    from olla.settings import parse
    from olla.simulation.server import NodeOptions, SimulatedNode

    running = [
        SimulatedNode(
            NodeOptions(
                name=f"node-{number + 1}",
                models=_MODELS[number % len(_MODELS)],
                vram=_VRAM[number % len(_VRAM)],
                time_scale=time_scale,
                seed=seed + number,
            )
        )
        for number in range(nodes)
    ]
    try:
        for node in running:
            await node.start("127.0.0.1", 0)
        endpoints = [
            {"name": node.options.name, "url": node.url, "type": "ollama", "check_interval": "2s"}
            for node in running
        ]
        text = yaml.safe_dump(
            {
                "server": {"host": host, "port": port},
                "discovery": {"static": {"endpoints": endpoints}},
                "logging": {"format": "text"},
                # The nodes are simulated, so deleting their models does no harm.
                "access": {"anonymous_operations": ["generate", "embed", "list", "manage"]},
            }
        )
        await serve(parse(text, {}, "the demo"), banner=lambda url: _banner(url, len(running)))
    finally:
        for node in running:
            await node.stop()


def _command() -> str:
    """Return the command line that started this program."""
    program = Path(sys.argv[0])
    return "python -m olla" if program.name == "__main__.py" else str(program)


def _banner(url: str, nodes: int) -> str:
    return f"""
olla is at {url}, in front of {nodes} simulated Ollama nodes. In another terminal, try:

  curl -s {url}/olla/ollama/api/generate \\
    -d '{{"model": "llama3.2", "prompt": "Why is the sky blue?", "stream": false}}'

  curl -sN {url}/olla/ollama/api/chat \\
    -d '{{"model": "mistral", "messages": [{{"role": "user", "content": "Hello!"}}]}}'

  curl -si {url}/v1/chat/completions \\
    -d '{{"model": "llama3.2", "messages": [{{"role": "user", "content": "Hello!"}}]}}'

  {_command()} status --url {url}

Press Ctrl-C to stop.

"""

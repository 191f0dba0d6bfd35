"""The simulated nodes, in a process of their own: prints their addresses, runs until it is ended.

The last one is the reference: it never fails, and no router knows it. All say the same words to
the same question, so that every answer can be checked against the reference's.
"""

import asyncio
import json
import signal
import sys

from olla.simulation.server import NodeOptions, SimulatedNode

MODELS = ("llama3.2:latest", "mistral:latest", "nomic-embed-text:latest")
SEED = 7


async def main(count: int) -> None:
    """Run so many nodes, and the reference."""
    stopping = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stopping.set)
    nodes = [
        SimulatedNode(
            NodeOptions(
                name=f"node-{number + 1}",
                models=MODELS,
                num_parallel=8,
                time_scale=0.02,
                keep_alive=100_000.0,
                seed=SEED,
            )
        )
        for number in range(count + 1)
    ]
    for node in nodes:
        await node.start()
    print(json.dumps([node.url for node in nodes]), flush=True)
    await stopping.wait()
    for node in nodes:
        await node.stop()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))

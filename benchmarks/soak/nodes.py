"""Run the simulated nodes in their own process; it prints their URLs and runs until terminated.

The last one is the reference: it never fails, and the router does not use it. All nodes answer a
question with the same text, so that every response can be compared with the reference's.
"""

import asyncio
import json
import signal
import sys

from olla.simulation.server import NodeOptions, SimulatedNode

MODELS = ("llama3.2:latest", "mistral:latest", "nomic-embed-text:latest")
SEED = 7


async def main(count: int) -> None:
    """Run `count` nodes and the reference."""
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

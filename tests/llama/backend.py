"""Run a real llama.cpp server in its own process: `python backend.py MODEL.gguf ALIAS SLOTS`.

It prints its address on a line, then serves until it is terminated.
"""

import sys
import threading

import xllamacpp


def main(model: str, alias: str, slots: int) -> None:
    """Serve a model."""
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {alias}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_parallel = slots
    params.n_ctx = 2048 * slots
    params.cpuparams.n_threads = 1
    params.warmup = False
    params.endpoint_slots = True
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

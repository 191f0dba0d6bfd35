"""olla: one address for a fleet of Ollama servers.

The request's way, one line a station; the folders answer one question each:

    proxy       HOW it moves: connection, head and body in; attempt, relay, bytes out
    dialects    WHAT is asked: path and body -> dialect, operation, model; how errors look
    translation a chat in one format as a chat in another: a common form, a codec for each format
    access      WHO asks: what a caller may do, and how much
    admission   WHEN it may start: the right to a slot (lease)
    routing     WHERE, and why: candidates, policy, decision
    fleet       on what KNOWLEDGE: endpoints, models, health, load; one frozen snapshot
    probing     asks the nodes, and feeds the fleet
    store       what outlives the process: keys, usage
    state       what routers share: limits, revocations
    telemetry   what happened: folds over RequestRecord
    surfaces    what olla answers itself: status, merged lists
    simulation  a faithful fake Ollama, for demo, tests and benchmarks
    settings    YAML -> typed settings
    app         the only place that wires all of it
    cli         one module a command
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("olla")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"

__all__ = ["__version__"]

"""Compiles the modules that are on every request's way, where a C compiler is there.

They are ordinary typed Python, and run as they are without: mypyc makes of the same files what
costs half as much. What is compiled is what deciding and relaying run through; what reaches into
aiohttp, starts things or is rare stays as it is. OLLA_COMPILE=0 leaves everything as it is.
"""

import os
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

# Not everything can be compiled: of a msgspec struct, types and class arguments are lost, so one
# that is decoded into, hashed or compared has to be in a module that is not in this list.
HOT = {
    "": (
        "clock",
        "record",
    ),
    "access/": ("limiter",),
    "admission/": (
        "dispatcher",
        "fairness",
        "feedback",
        "loads",
        "prewarm",
        "queue",
        "queue_types",
    ),
    "dialects/": (
        "hints",
        "json_scan",
        "ollama",
        "openai",
        "peek",
        "records",
        "rewrite",
        "top_level",
    ),
    "fleet/": (
        "estimates",
        "instance",
        "slots",
        "twin",
        "twins",
    ),
    "probing/": (
        "prober",
        "watch",
    ),
    "proxy/auth/": (
        "authenticate",
        "authorize",
    ),
    "proxy/background/": ("rerouting",),
    "proxy/bounds/": (
        "body_budget",
        "timer_wheel",
    ),
    "proxy/exchange/": (
        "admission",
        "attempt",
        "attempt_result",
        "context_length",
        "exchange",
        "failover",
        "message_building",
        "request_features",
        "request_parsing",
        "response_headers",
        "token_estimate",
    ),
    "proxy/http/": (
        "credentials",
        "date_header",
        "framing",
        "headers",
        "message_fields",
        "request",
        "response_head",
    ),
    "proxy/server/": (
        "aiohttp_request",
        "fast_path",
        "hot_head",
        "server",
    ),
    "proxy/upstream/": (
        "pool",
        "relay",
    ),
    "routing/": (
        "affinity",
        "candidates",
        "decision",
        "delay",
    ),
    "routing/policies/": ("shortest_expected_delay",),
    "telemetry/": (
        "counters",
        "metrics",
        "model_labels",
        "request_log",
        "traffic",
    ),
}


def extensions() -> list[object]:
    """What is to be compiled: nothing for an editable installation, where edits have to count."""
    building = {"bdist_wheel", "build", "build_ext", "install"} & set(sys.argv)
    if not building or os.environ.get("OLLA_COMPILE") == "0":
        return []
    try:
        from mypyc.build import mypycify
    except ImportError:
        return []
    paths = [f"olla/{folder}{name}.py" for folder, names in HOT.items() for name in names]
    try:
        return mypycify(paths, opt_level="3", debug_level="0")
    except (SystemExit, Exception) as error:
        # It checks types against whatever versions of the libraries are installed, and ends the
        # process when a newer one has others: no reason not to install olla.
        print(f"olla is not compiled, and runs all the same: {error}", file=sys.stderr)
        return []


class BuildAll(build_ext):
    """Builds all extensions or none: they are parts of one library, and each needs it."""

    def build_extensions(self) -> None:
        """Without a C compiler olla runs as it is."""
        try:
            super().build_extensions()
        except (CCompilerError, ExecError, PlatformError) as error:
            self.warn(f"olla is not compiled, and runs all the same: {error}")
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.extensions = []


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildAll})

"""Compile the modules on the path of every request, if a C compiler is available.

They are ordinary typed Python, which also runs uncompiled; compiled by mypyc it costs half as much.
Modules for routing and relaying are compiled. Modules that use aiohttp's internals, run at startup
or run rarely are not. OLLA_COMPILE=0 disables compiling.
"""

import os
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CCompilerError, ExecError, PlatformError

# Some code must not be compiled: a compiled msgspec struct loses its types and class arguments.
# Structs that are decoded, hashed or compared belong in a module that is not in this list.
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
    """Return the extensions to compile; none for editable installs, which edits must affect."""
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
        # mypyc checks types against the installed versions of the libraries, and exits if a newer
        # version has other types. That must not prevent the installation.
        print(f"installing olla uncompiled, which works but is slower: {error}", file=sys.stderr)
        return []


class BuildAll(build_ext):
    """Builds all extensions or none: they are parts of one library and depend on each other."""

    def build_extensions(self) -> None:
        """Build the extensions, or none of them without a C compiler."""
        try:
            super().build_extensions()
        except (CCompilerError, ExecError, PlatformError) as error:
            self.warn(f"installing olla uncompiled, which works but is slower: {error}")
            for extension in self.extensions:
                Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)
            self.extensions = []


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildAll})

"""Compiles the modules that are on every request's way, where a C compiler is there.

They are ordinary typed Python, and run as they are without: mypyc makes of the same files what
costs half as much. What is compiled is what deciding and relaying run through; what reaches into
aiohttp, starts things or is rare stays as it is. OLLA_COMPILE=0 leaves everything as it is.
"""

import os
import sys

from setuptools import setup

# Not everything can be compiled: of a msgspec struct, types and class arguments are lost, so one
# that is decoded into, hashed or compared has to be in a module that is not in this list.
HOT = {
    "": ("clock", "record"),
    "access/": ("limiter",),
    "admission/": ("dispatcher", "fairness", "learning", "placement", "tickets"),
    "dialects/": ("hints", "ollama", "openai", "peek", "records", "top_level"),
    "fleet/": ("estimates", "line", "slots", "twin", "twins"),
    "proxy/": (
        *("admitting", "aiohttp_incoming", "allowing", "attempt", "context_length"),
        *("counting", "credentials", "deadlines", "describing"),
        *("downstream", "exchange", "fast_path", "fields", "forming", "framing", "gate"),
        *(
            "giving_up",
            "head",
            "headers",
            "hot_head",
            "incoming",
            "noting",
            "relay",
            "retrying",
            "settling",
            "tail",
        ),
        *("telling", "understanding", "upstream"),
    ),
    "probing/": ("prober", "watch"),
    "routing/": ("affinity", "candidates", "decision", "delay"),
    "routing/policies/": ("shortest_expected_delay",),
    "telemetry/": ("metrics", "model_labels", "request_log", "tallies", "traffic"),
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
    made = mypycify(
        [f"olla/{folder}{name}.py" for folder, names in HOT.items() for name in names],
        opt_level="3",
        debug_level="0",
    )
    for extension in made:
        extension.optional = True  # without a C compiler olla runs as it is
    return made


setup(ext_modules=extensions())

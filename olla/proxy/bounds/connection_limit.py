"""How many clients one router takes in.

A client over the limit is told to come again; requests under way go on. A limit that the operator
does not set follows from how many files the process may have open: each connection of a client
may need one to an endpoint. The memory for bodies is in `body_budget`.
"""

import resource

from olla.failures import Failure, Kind

__all__ = ["connections_max", "overloaded"]

_RESERVE = 64
"""Files for everything else: probes, logs, libraries."""


def connections_max(wanted: int | None) -> int:
    """How many clients may be connected: what the operator wants, or half of the files that the
    process may have open, which are made as many as it may ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > soft:
        most = 1_048_576 if hard == resource.RLIM_INFINITY else hard
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
            soft = max(soft, most)
        except (OSError, ValueError):
            pass  # some systems allow less than they say
    return wanted if wanted is not None else max((soft - _RESERVE) // 2, 16)


def overloaded(what: str, setting: str) -> Failure:
    """The failure of a request for which there is no room."""
    return Failure(
        Kind.OVERLOADED, f"the router is overloaded: {what} ({setting}); try again", retry_after=1.0
    )

"""Limit how many clients may be connected to one router.

Clients over the limit are asked to retry; in-flight requests continue. The default limit follows
from the number of open files the process may have, because each client connection may need one to
an endpoint. The memory for bodies is limited in `body_budget`.
"""

import resource

from olla.failures import Failure, Kind

__all__ = ["connections_max", "overloaded"]

_RESERVE = 64
"""File descriptors reserved for everything else: probes, logs, libraries."""


def connections_max(wanted: int | None) -> int:
    """Return the connection limit: `wanted` if it is set, else half of the open files limit.

    Raises the process's open files limit as far as the system allows.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard > soft:
        most = 1_048_576 if hard == resource.RLIM_INFINITY else hard
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
            soft = max(soft, most)
        except (OSError, ValueError):
            pass  # some systems allow less than the hard limit they report
    return wanted if wanted is not None else max((soft - _RESERVE) // 2, 16)


def overloaded(what: str, setting: str) -> Failure:
    """Return the failure of a request that the router has no capacity for."""
    return Failure(
        Kind.OVERLOADED, f"the router is overloaded: {what} ({setting}); try again", retry_after=1.0
    )

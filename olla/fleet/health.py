"""What probes say of an endpoint, as a table of transitions.

Placeholder for the states; the table follows.
"""

import enum

__all__ = ["Health"]


class Health(enum.Enum):
    """The state of an endpoint as far as probes know it."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    BUSY = "busy"
    WARMING = "warming"
    UNHEALTHY = "unhealthy"
    OFFLINE = "offline"
    CONFIG_ERROR = "config-error"
    RATE_LIMITED = "rate-limited"

    @property
    def routable(self) -> bool:
        """Whether requests may be sent to an endpoint in this state."""
        return self in _ROUTABLE


_ROUTABLE = frozenset({Health.HEALTHY, Health.BUSY})

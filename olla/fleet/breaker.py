"""What traffic says of an endpoint. The states; the machine follows."""

import enum

__all__ = ["BreakerState"]


class BreakerState(enum.Enum):
    """Whether recent requests to an endpoint went well."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"

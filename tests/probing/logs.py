"""A logger whose entries tests can read."""

import structlog
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

__all__ = ["capturing_logger"]


def capturing_logger(log: LogCapture) -> FilteringBoundLogger:
    """Return a logger that stores its entries in `log`."""
    logger: FilteringBoundLogger = structlog.wrap_logger(
        structlog.PrintLogger(),
        processors=[log],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
    return logger

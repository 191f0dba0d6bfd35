"""What was logged, for tests to read."""

import structlog
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

__all__ = ["capturing_logger"]


def capturing_logger(log: LogCapture) -> FilteringBoundLogger:
    """A logger that keeps its entries in `log`."""
    logger: FilteringBoundLogger = structlog.wrap_logger(
        structlog.PrintLogger(),
        processors=[log],
        wrapper_class=structlog.make_filtering_bound_logger(0),
    )
    return logger
